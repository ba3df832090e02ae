"""Writing a clip in stages: an error of any of them comes out as it is, and leaves no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks.clip_writer import MASK_FOLDER, write_clip
from tasks.decode import DecodeOptions
from tasks.errors import FootageError
from tasks.footage import FootageItem, discover
from tasks.segment_clip import ClipSegmenter, ClipSegments
from tests.tasks.moving_square import ColourMethod, square_clip
from tests.tasks.test_segment import write_frames, write_video

NUM_FRAMES = 9


@pytest.fixture
def segments() -> Iterator[ClipSegments]:
    with ClipSegmenter(ColourMethod(), None).segment_clip(square_clip(NUM_FRAMES)[0]) as found:
        yield found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out" / MASK_FOLDER).mkdir(parents=True)
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "prefetch"] == []


def item_of(path: Path) -> FootageItem:
    return discover([str(path)]).items[0]


def test_frames_are_written_in_order_and_counted(tmp_path: Path, out: Path, segments: ClipSegments) -> None:
    counts: list[int] = []
    item = item_of(write_video(tmp_path / "fox.mp4", NUM_FRAMES))
    summary = write_clip(item, segments, out, DecodeOptions(), on_frame=counts.append)
    assert counts == list(range(1, NUM_FRAMES + 1))
    assert [row.frame for row in summary.rows] == sorted({row.frame for row in summary.rows})
    expected = [segments.mask(index, summary.size).mean() for index in range(NUM_FRAMES)]
    np.testing.assert_allclose(summary.shares, expected, rtol=1e-12)


def test_footage_that_breaks_on_the_second_look(tmp_path: Path, out: Path, segments: ClipSegments) -> None:
    folder = write_frames(tmp_path / "fox", NUM_FRAMES)
    item = item_of(folder)
    (folder / "00005.png").write_bytes(b"")
    with pytest.raises(FootageError, match="00005"):
        write_clip(item, segments, out, DecodeOptions())
    assert len(list((out / MASK_FOLDER).iterdir())) <= 5


def test_masks_that_can_not_be_made(
    tmp_path: Path, out: Path, segments: ClipSegments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ClipSegments, frame: int, size: tuple[int, int]) -> None:
        raise OSError(f"no room to read frame {frame}")

    monkeypatch.setattr(ClipSegments, "mask", broken)
    with pytest.raises(OSError, match="no room to read frame 0"):
        write_clip(item_of(write_video(tmp_path / "fox.mp4", NUM_FRAMES)), segments, out, DecodeOptions())


def test_a_folder_that_can_not_be_written(tmp_path: Path, out: Path, segments: ClipSegments) -> None:
    (out / MASK_FOLDER).rmdir()
    with pytest.raises(FileNotFoundError, match=r"00000\.png"):
        write_clip(item_of(write_video(tmp_path / "fox.mp4", NUM_FRAMES)), segments, out, DecodeOptions())


def test_an_observer_that_interrupts(tmp_path: Path, out: Path, segments: ClipSegments) -> None:
    """As Ctrl-C does, between two frames."""

    def interrupt(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clip(
            item_of(write_video(tmp_path / "fox.mp4", NUM_FRAMES)), segments, out, DecodeOptions(), on_frame=interrupt
        )
    assert len(list((out / MASK_FOLDER).iterdir())) == 3
