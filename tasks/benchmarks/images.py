"""Still images with a mask each: CUB, DUTS, ECSSD and DUT-OMRON, in the layouts that GWM's released code reads.

Images and masks are two folders, of files or of folders of files, and belong together by their order when sorted. A
mask is foreground where its first channel is above half. Of CUB the central square is taken, of image and mask alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.benchmarks.files import is_folder, require_folder, shortened, stem
from tasks.errors import ConfigError, DatasetError, FootageError
from tasks.footage_files import base_name, list_folder, open_footage
from tasks.frame_images import decode_image, load_picture
from tasks.pictures import Picture
from tasks.storage import location

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class BenchmarkImage:
    """One image with its mask; addresses only, so that it travels between processes."""

    name: str
    image: str
    mask: str
    central_square: bool = False

    def load(self) -> tuple[Picture, NDArray[np.bool_]]:
        """Return the image [H, W, 3] and its mask [H, W], true for foreground.

        Raises FootageError: "corrupt" for a file that is no image, "annotation_mismatch" for a mask of another size.
        """
        with open_footage(self.image) as file:
            picture = decode_image(file.read(), self.image).image
        with open_footage(self.mask) as file:
            mask = _decode_mask(file.read(), self.mask)
        if mask.shape != picture.shape[:2]:
            raise FootageError(
                "annotation_mismatch",
                f"{self.mask} is {mask.shape} (rows, columns), {self.image} {picture.shape[:2]}; expected equal sizes",
            )
        return (cut_central_square(picture), cut_central_square(mask)) if self.central_square else (picture, mask)


@dataclass(frozen=True, kw_only=True)
class ImageBenchmark:
    """Images to score a model on. num_published: how many there are in a full copy."""

    name: str
    root: str
    images: tuple[BenchmarkImage, ...]
    num_published: int

    @property
    def coverage(self) -> str:
        """How much of the benchmark is scored, such as ``10 of 1000 images``."""
        return f"{len(self.images)} of {self.num_published} images"


@dataclass(frozen=True, kw_only=True)
class ImageFamily:
    """Where a copy of a benchmark has its images and masks: folders below the root, or below ``parent`` in it."""

    parent: str
    images: str
    masks: str
    num_images: int
    central_square: bool = False


IMAGE_BENCHMARKS: dict[str, ImageFamily] = {
    # The number of test images in the published lists; folders as in GWM's released notebook.
    "cub": ImageFamily(
        parent="CUB_200_2011",
        images="test_images",
        masks="test_segmentations",
        num_images=1000,
        central_square=True,
    ),
    "duts": ImageFamily(parent="DUTS", images="DUTS-TE/DUTS-TE-Image", masks="DUTS-TE/DUTS-TE-Mask", num_images=5019),
    "ecssd": ImageFamily(parent="ECSSD", images="images", masks="ground_truth_mask", num_images=1000),
    "dut-omron": ImageFamily(
        parent="DUT_OMRON", images="DUT-OMRON-image", masks="pixelwiseGT-new-PNG", num_images=5168
    ),
}


def open_image_benchmark(name: str, root: str, images: Sequence[str] | None = None) -> ImageBenchmark:
    """Open a benchmark of still images in the folder or URI ``root``; ``images`` narrows it to those named.

    Raises ConfigError for an unknown benchmark or image, DatasetError naming a folder that is missing, or the files
    that have no partner.
    """
    if name not in IMAGE_BENCHMARKS:
        raise ConfigError(f"no benchmark {name!r}: expected one of {', '.join(IMAGE_BENCHMARKS)}")
    family, root = IMAGE_BENCHMARKS[name], location(root).uri
    base = f"{root}/{family.parent}" if is_folder(f"{root}/{family.parent}") else root
    layout = f"{family.parent}/{family.images} and {family.parent}/{family.masks}"
    pictures = _sorted_images(require_folder(f"{base}/{family.images}", name, layout))
    masks = _sorted_images(require_folder(f"{base}/{family.masks}", name, layout))
    found = _paired(name, pictures, masks, family.central_square)
    return ImageBenchmark(
        name=name, root=root, images=_select(name, root, found, images), num_published=family.num_images
    )


def cut_central_square(pixels: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return the central square of an image or mask, as torchvision's ``CenterCrop`` of the shorter side takes it."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    return pixels[top : top + side, left : left + side]


def _decode_mask(data: bytes, name: str) -> NDArray[np.bool_]:
    values = np.asarray(load_picture(data, name).convert("RGB"))[..., 0]
    if values.max(initial=0) == 1:
        raise FootageError(
            "annotation_mismatch", f"{name} holds 0 and 1; expected grey of 0 to 255, white for foreground"
        )
    mask: NDArray[np.bool_] = values > 255 / 2
    return mask


def _sorted_images(folder: str) -> dict[str, str]:
    """Return the addresses of a folder's images by their path below it without extension, sorted by that path."""
    listing = list_folder(folder)
    images = {stem(file): file for file in listing.images}
    for subfolder in listing.folders:
        images |= {f"{base_name(subfolder)}/{stem(file)}": file for file in list_folder(subfolder).images}
    return dict(sorted(images.items()))


def _paired(
    benchmark: str, images: dict[str, str], masks: dict[str, str], central_square: bool
) -> list[BenchmarkImage]:
    """Pair images and masks by their order; their names must be the same, or all different."""
    alone, unused = [name for name in images if name not in masks], [name for name in masks if name not in images]
    if len(images) != len(masks) or (alone and len(alone) < len(images)) or not images:
        raise DatasetError(
            f"benchmark {benchmark}: {len(images)} images and {len(masks)} masks; images without a mask: "
            f"{shortened(alone) or 'none'}; masks without an image: {shortened(unused) or 'none'}. "
            "Expected one mask for each image, since they are paired in the order of their names"
        )
    return [
        BenchmarkImage(name=name, image=image, mask=mask, central_square=central_square)
        for (name, image), mask in zip(images.items(), masks.values(), strict=True)
    ]


def _select(
    benchmark: str, root: str, available: list[BenchmarkImage], names: Sequence[str] | None
) -> tuple[BenchmarkImage, ...]:
    if names is None:
        return tuple(available)
    by_name = {image.name: image for image in available}
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise ConfigError(
            f"images {shortened(unknown) or '(none)'} are not in {benchmark} at {root}: expected some of "
            f"{shortened(list(by_name))}"
        )
    return tuple(by_name[name] for name in dict.fromkeys(names))
