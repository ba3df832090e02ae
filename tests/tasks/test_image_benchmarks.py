"""Benchmarks of still images in the layouts of the released code; unequal counts and strange masks are told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tasks.benchmarks.images import IMAGE_BENCHMARKS, cut_central_square, open_image_benchmark
from tasks.errors import ConfigError, DatasetError, FootageError
from tests.tasks.small_images import FOLDERS, grey_image, write_image, write_images


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("inside", [True, False])
def test_layouts(tmp_path, name, inside):
    write_images(tmp_path, name, ["b", "a", "a_1"])
    root = tmp_path / IMAGE_BENCHMARKS[name].parent if inside else tmp_path
    benchmark = open_image_benchmark(name, str(root))
    assert [image.name for image in benchmark.images] == ["a", "a_1", "b"]
    assert benchmark.coverage == f"3 of {IMAGE_BENCHMARKS[name].num_images} images"
    picture, mask = benchmark.images[0].load()
    if name == "cub":
        assert picture.shape == (12, 12, 3)
        assert mask.shape == (12, 12)
    else:
        assert picture.shape == (20, 12, 3)  # portrait
        assert mask.shape == (20, 12)
    assert mask.any()
    assert not mask.all()


def test_class_folders_of_cub_are_paired_by_their_paths(tmp_path):
    for kind, extension in (("test_images", "jpg"), ("test_segmentations", "png")):
        for path in ("002.Laysan/x", "001.Black/z", "001.Black/y"):
            write_image(tmp_path / "CUB_200_2011" / kind / f"{path}.{extension}", grey_image(90))
    benchmark = open_image_benchmark("cub", str(tmp_path))
    assert [image.name for image in benchmark.images] == ["001.Black/y", "001.Black/z", "002.Laysan/x"]
    assert all(Path(image.image).stem == Path(image.mask).stem for image in benchmark.images)


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    # torchvision's CenterCrop rounds half a pixel to the even side
    [(20, 12, 4, 0), (12, 20, 0, 4), (12, 21, 0, 4), (7, 10, 0, 2), (9, 9, 0, 0)],
)
def test_central_square(height, width, top, left):
    pixels = np.arange(height * width).reshape(height, width)
    side = min(height, width)
    found = cut_central_square(pixels)
    assert np.array_equal(found, pixels[top : top + side, left : left + side])


def test_names_that_all_differ_are_paired_by_order(tmp_path):
    images, masks = (tmp_path / "ECSSD" / folder for folder in ("images", "ground_truth_mask"))
    for index in range(3):
        write_image(images / f"photo_{index}.jpg", grey_image(90))
        write_image(masks / f"mask_{index}.png", grey_image(255))
    benchmark = open_image_benchmark("ecssd", str(tmp_path))
    assert [Path(image.mask).name for image in benchmark.images] == ["mask_0.png", "mask_1.png", "mask_2.png"]


def test_unequal_counts_are_refused(tmp_path):
    masks = write_images(tmp_path, "ecssd", ["a", "b", "c"])
    (masks / "b.png").unlink()
    with pytest.raises(DatasetError, match=r"3 images and 2 masks; images without a mask: b; masks .* none"):
        open_image_benchmark("ecssd", str(tmp_path))
    write_image(masks / "d.png", grey_image(255))  # equal counts again, but everything after b would be shifted
    with pytest.raises(DatasetError, match=r"3 images and 3 masks; .* mask: b; masks without an image: d"):
        open_image_benchmark("ecssd", str(tmp_path))


def test_empty_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=f"no folder {tmp_path}/images; expected ECSSD/images and"):
        open_image_benchmark("ecssd", str(tmp_path))
    (tmp_path / "DUTS/DUTS-TE/DUTS-TE-Image").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"no folder .*/DUTS/DUTS-TE/DUTS-TE-Mask"):
        open_image_benchmark("duts", str(tmp_path))
    (tmp_path / "DUTS/DUTS-TE/DUTS-TE-Mask").mkdir()
    with pytest.raises(DatasetError, match="0 images and 0 masks"):
        open_image_benchmark("duts", str(tmp_path))


def test_images_can_be_named(tmp_path):
    write_images(tmp_path, "ecssd", ["a", "b", "c"])
    benchmark = open_image_benchmark("ecssd", str(tmp_path), ["c", "a", "c"])
    assert [image.name for image in benchmark.images] == ["c", "a"]
    assert benchmark.coverage == "2 of 1000 images"
    with pytest.raises(ConfigError, match=r"images d are not in ecssd .* a, b, c"):
        open_image_benchmark("ecssd", str(tmp_path), ["d"])
    with pytest.raises(ConfigError, match="expected one of cub, duts, ecssd, dut-omron"):
        open_image_benchmark("pascal", str(tmp_path))


def test_masks_are_cut_at_half_of_their_first_channel(tmp_path):
    write_images(tmp_path, "ecssd", ["a"])
    values = np.zeros((20, 12, 3), np.uint8)
    values[:, 0] = (0, 0, 127)  # OpenCV writes blue first
    values[:, 1] = (0, 0, 128)
    values[:, 2] = (255, 255, 0)
    write_image(tmp_path / "ECSSD/ground_truth_mask/a.png", values)
    _, mask = open_image_benchmark("ecssd", str(tmp_path)).images[0].load()
    assert mask[0, :4].tolist() == [False, True, False, False]


def test_strange_masks_are_refused(tmp_path):
    masks = write_images(tmp_path, "ecssd", ["a"])
    (image,) = open_image_benchmark("ecssd", str(tmp_path)).images
    write_image(masks / "a.png", grey_image(1))
    with pytest.raises(FootageError, match="holds 0 and 1"):
        image.load()
    write_image(masks / "a.png", np.zeros((12, 20), np.uint8))
    with pytest.raises(FootageError, match=r"\(12, 20\) .* \(20, 12\); expected equal"):
        image.load()
    (masks / "a.png").write_bytes(cv2.imencode(".png", np.zeros((2, 2), np.uint8))[1].tobytes()[:40])
    with pytest.raises(FootageError, match="corrupt"):
        image.load()
