"""Identity against ``hashlib`` and ``sha256sum``: what must change it does, what must not does not."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.decode import iterate_frames
from tasks.errors import FootageError
from tasks.footage import FootageItem, discover
from tasks.identity import Recipe, hash_bytes, hash_file, hash_frames, recipe_difference, video_id
from tests.shared import DAVIS, shared_or_skip
from tests.video_files import write_video


def test_a_video_has_the_id_that_sha256sum_prints(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    printed = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout
    (item,) = discover([str(path)]).items
    assert video_id(item) == printed.split()[0]
    moved = path.rename(tmp_path / "other name.mp4")
    assert video_id(discover([str(moved)]).items[0]) == printed.split()[0]


def test_hashing_streams_in_pieces() -> None:
    data = bytes(range(256)) * 10_000  # more than two of the pieces in which it is read
    assert hash_file(io.BytesIO(data)) == hash_bytes(data) == hashlib.sha256(data).hexdigest()


def test_frames_hash_by_name_and_content_in_any_order() -> None:
    def frames(*pairs: tuple[str, bytes]) -> str:
        return hash_frames((name, io.BytesIO(data)) for name, data in pairs).video_id

    digest = hashlib.sha256
    expected = digest(b"a\0" + digest(b"1").digest() + b"b\0" + digest(b"2").digest()).hexdigest()
    assert frames(("a", b"1"), ("b", b"2")) == frames(("b", b"2"), ("a", b"1")) == expected
    others = [frames(("a", b"12"), ("b", b"")), frames(("a", b"2"), ("b", b"1")), frames(("a", b"1"))]
    assert expected not in others
    assert len(set(others)) == 3


def test_a_folder_of_frames_changes_with_its_frames_and_masks(tmp_path: Path) -> None:
    source = shared_or_skip(DAVIS)
    frames, masks = tmp_path / "JPEGImages/480p/dog", tmp_path / "Annotations/480p/dog"
    for kind, folder, suffix in (("JPEGImages", frames, "jpg"), ("Annotations", masks, "png")):
        folder.mkdir(parents=True)
        for number in range(3):
            shutil.copy(source / kind / "480p/dog" / f"{number:05d}.{suffix}", folder)

    def identity() -> str:
        return video_id(discover([str(tmp_path)]).items[0])

    first = identity()
    frames.rename(frames.with_name("cat"))
    masks.rename(masks.with_name("cat"))
    assert identity() == first  # the clip's name is no part of it
    shutil.copy(masks.with_name("cat") / "00000.png", masks.with_name("cat") / "00001.png")
    second = identity()
    assert second != first
    shutil.rmtree(tmp_path / "Annotations")
    assert identity() not in (first, second)


def test_footage_that_is_gone_is_not_found(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    (item,) = discover([str(path)]).items
    path.unlink()
    with pytest.raises(FootageError, match="not_found"):
        video_id(item)


@pytest.mark.skipif(sys.platform != "linux", reason="a file that can be opened and not read is Linux's")
def test_a_disk_that_fails_while_hashing_is_told_as_footage(tmp_path: Path) -> None:
    unreadable = "/proc/self/mem"  # at its start is nothing: EIO
    (tmp_path / "0.png").symlink_to(unreadable)
    video = FootageItem(uri=unreadable, clip="video", kind="video")
    image = FootageItem(uri=str(tmp_path / "0.png"), clip="image", kind="image")
    frames = FootageItem(uri=str(tmp_path), clip="frames", kind="frames")
    for item in (video, image, frames):
        with pytest.raises(FootageError, match=r"not_found: can not read .*Input/output error"):
            video_id(item)
    with pytest.raises(FootageError, match=r"not_found: .*Input/output error"):
        next(iterate_frames(image))
    with pytest.raises(FootageError, match="not_found"):
        next(iterate_frames(video))


@pytest.mark.parametrize(
    "change",
    [
        {"fps": 12.0},
        {"max_side": 480},
        {"jpeg_quality": 90},
        {"gaps": (3, -3, 6, -6)},
        {"flow_estimator": "raft-large"},
        {"flow_weights_sha256": "0" * 64},
        {"schema_version": 2},
    ],
)
def test_every_field_of_the_recipe_changes_its_hash_and_is_named(change: dict[str, Any]) -> None:
    recipe = Recipe(schema_version=1)
    changed = Recipe(**{"schema_version": 1, **change})
    assert changed.hash() != recipe.hash()
    assert recipe_difference(recipe, changed) == list(change)


def test_equal_recipes_have_equal_hashes() -> None:
    recipe = Recipe(schema_version=1, fps=25, gaps=(-2, 1, 2, -1))
    same = Recipe(schema_version=1, fps=25.0, gaps=(1, -1, 2, -2))
    assert recipe.hash() == same.hash()
    assert recipe_difference(recipe, same) == []
    assert Recipe.model_validate_json(recipe.model_dump_json()).hash() == recipe.hash()
    canonical = (
        '{"flow_estimator":"dis","flow_weights_sha256":null,"fps":25.0,"gaps":[1,-1,2,-2],'
        '"jpeg_quality":95,"max_side":null,"schema_version":1,"shots":"off"}'
    )
    assert recipe.hash() == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    "bad",
    [
        {"gaps": (0, 1)},
        {"gaps": ()},
        {"gaps": (1, 1)},
        {"fps": 0},
        {"fps": float("inf")},
        {"max_side": 4},
        {"jpeg_quality": 101},
        {"fsp": 3},
        {"schema_version": 0},
    ],
)
def test_unusable_recipes_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**{"schema_version": 1, **bad})
