"""Folders of frames, single images and masks of every kind that Pillow can write."""

from __future__ import annotations

import io
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.benchmarks.types import MaskFiles
from tasks.decode import iterate_frames, probe
from tasks.errors import FootageError
from tasks.footage import FootageItem
from tests.decoded import clip_of, frames_of, numbers_of, refusal_of, write_bytes
from tests.hostile.bytes_of import picture_bomb, text_bomb
from tests.video_files import (
    cut_off,
    numbered_frames,
    red_corner,
)


def write_frames(folder: Path, names: list[str], size: tuple[int, int] = (64, 48), **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, numbered_frames(len(names), *size), strict=True):
        Image.fromarray(image).save(folder / name, **options)
    return folder


def test_frames_come_in_natural_order(tmp_path: Path) -> None:
    names = [f"frame{number}.png" for number in range(12)]
    frames = frames_of(write_frames(tmp_path / "frames", names))
    assert numbers_of(frames) == list(range(12))
    assert frames[10].source_name == "frame10.png"
    assert frames[0].jpeg is None  # PNG bytes are no JPEG


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif"])
def test_single_images(tmp_path: Path, name: str) -> None:
    path = write_frames(tmp_path, [name]) / name
    item = clip_of(path)
    (frame,) = iterate_frames(item)
    assert (item.kind, frame.index, frame.time_seconds, frame.source_name) == ("image", 0, 0.0, name)
    assert red_corner(frame.image) == "top left"
    assert (frame.jpeg is not None) == (name == "a.jpg")
    assert probe(item).num_frames == 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "I;16", "CMYK"])
def test_other_pixel_formats_become_rgb(tmp_path: Path, mode: str) -> None:
    levels = np.full((48, 64), 100, np.uint8)
    levels[:16] = 200
    if mode == "I;16":
        picture = Image.fromarray(levels.astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(levels).convert("RGB").convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    (frame,) = frames_of(path)
    assert frame.image.shape == (48, 64, 3)
    assert frame.jpeg is None
    if mode != "1":
        assert abs(int(frame.image[5, 5, 0]) - 200) <= 5  # the web palette has 204
        assert abs(int(frame.image[40, 40, 2]) - 100) <= 5  # and 102


def test_exif_orientation_is_applied_and_stops_the_pass_through(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    (frame,) = frames_of(write_frames(tmp_path, ["a.jpg"], exif=exif) / "a.jpg")
    assert frame.image.shape == (64, 48, 3)
    assert red_corner(frame.image) == "top right"
    assert frame.jpeg is None


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", ["0.png", "1.png"])
    write_frames(tmp_path / "frames", ["2.png"], size=(66, 48))
    error = refusal_of(tmp_path / "frames")
    assert error.reason == "mixed_sizes"
    assert "2.png is 66x48" in error.detail


def test_an_image_that_was_cut_off_is_corrupt(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        path = write_frames(tmp_path, [name]) / name
        assert refusal_of(cut_off(path, path)).reason == "corrupt"
    assert refusal_of(write_bytes(tmp_path / "c.jpg", b"")).reason == "corrupt"
    assert refusal_of(write_bytes(tmp_path / "d.jpg", b"GIF89a but named jpg")).reason == "corrupt"


@pytest.mark.parametrize("side", [8200, 20_000])  # below and above where Pillow itself refuses
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    assert refusal_of(write_bytes(tmp_path / "huge.png", buffer.getvalue())).reason == "too_large"


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [(picture_bomb(8200), "too_large"), (picture_bomb(20_000), "too_large"), (text_bomb(8 << 20), "corrupt")],
)
def test_a_mask_of_a_benchmark_is_refused_before_it_explodes(tmp_path: Path, bomb: bytes, reason: str) -> None:
    """Evaluation decodes masks in its own process: what they may take is known from their headers."""
    mask = write_bytes(tmp_path / "mask.png", bomb)
    tracemalloc.start()
    with pytest.raises(FootageError) as caught:
        MaskFiles(addresses=(str(mask),)).read()
    assert caught.value.reason == reason
    assert tracemalloc.get_traced_memory()[1] < 8 << 20  # 67 and 400 MB of pixels, 8 MiB of text
    tracemalloc.stop()


def annotated_clip(root: Path, masks: dict[str, Image.Image]) -> FootageItem:
    write_frames(root / "JPEGImages/clip", ["00000.jpg", "00001.jpg", "00002.jpg"])
    (root / "Annotations/clip").mkdir(parents=True)
    for name, mask in masks.items():
        mask.save(root / "Annotations/clip" / name)
    return clip_of(root)


def levels_mask(*levels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.zeros((48, 64), np.uint8)
    for row, level in enumerate(levels):
        mask[row] = level
    return mask


def test_masks_of_every_kind(tmp_path: Path) -> None:
    palette = Image.new("P", (64, 48))
    palette.putdata(levels_mask(0, 1, 2, 0).ravel().tolist())
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    cases = {
        "davis2016": (Image.fromarray(levels_mask(0, 255, 129, 128, 127)), [0, 1, 1, 0, 0]),
        "labels": (Image.fromarray(levels_mask(0, 1, 2, 0)), [0, 1, 1, 0]),
        "palette": (palette, [0, 1, 1, 0]),
        "bits": (Image.fromarray(levels_mask(0, 255) > 0), [0, 1]),
        "colour": (Image.fromarray(np.stack([levels_mask(0, 255, 100)] * 3, axis=-1)), [0, 1, 0]),
        "empty": (Image.fromarray(levels_mask(0)), [0, 0]),
    }
    for name, (mask, rows) in cases.items():
        (first, second, third) = iterate_frames(annotated_clip(tmp_path / name, {"00001.png": mask}))
        assert first.annotation is None  # frames without a mask are fine
        assert third.annotation is None
        assert second.annotation is not None, name
        assert second.annotation.dtype == np.bool_
        assert second.annotation[: len(rows), 0].astype(int).tolist() == rows, name


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    small = Image.fromarray(np.zeros((24, 32), np.uint8))
    with pytest.raises(FootageError, match=r"annotation_mismatch: .*is 32x24; expected 64x48"):
        list(iterate_frames(annotated_clip(tmp_path / "size", {"00001.png": small})))
    with pytest.raises(FootageError, match="annotation_mismatch: no mask in"):
        list(iterate_frames(annotated_clip(tmp_path / "names", {"mask.png": small})))
    item = annotated_clip(tmp_path / "damaged", {"00000.png": Image.fromarray(levels_mask(255))})
    path = tmp_path / "damaged/Annotations/clip/00000.png"
    cut_off(path, path)
    with pytest.raises(FootageError, match="corrupt"):
        list(iterate_frames(item))


def test_a_folder_that_was_emptied_is_not_found(tmp_path: Path) -> None:
    item = clip_of(write_frames(tmp_path / "frames", ["0.png", "1.png"]))
    shutil.rmtree(tmp_path / "frames")
    with pytest.raises(FootageError, match="not_found"):
        list(iterate_frames(item))
    (tmp_path / "frames").mkdir()
    with pytest.raises(FootageError, match="no images"):
        list(iterate_frames(item))
