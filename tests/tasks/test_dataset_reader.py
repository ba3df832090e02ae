from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.catalog import open_dataset
from tasks.dataset import FrameReader
from tasks.errors import DatasetError
from tasks.flow_codec import MAX_ERROR_PX
from tests.tasks.training_data import GAPS, HEIGHT, WIDTH, flow_of, frame_of, write_dataset

NUM_FRAMES = (8, 6, 11)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("dataset"), num_frames=NUM_FRAMES)


@pytest.fixture
def reader(uri: str) -> FrameReader:
    return FrameReader(open_dataset(uri))


def clip_of(reader: FrameReader, number: int) -> int:
    """Index of the clip that was written ``number``-th; the reader sorts by identity."""
    return next(clip for clip in range(len(reader.clips)) if reader.clip_name(clip) == f"clip_{number}")


def test_clips_have_their_lengths(reader: FrameReader) -> None:
    assert [reader.clips[clip_of(reader, number)].num_frames for number in range(3)] == list(NUM_FRAMES)


@pytest.mark.parametrize("gap", GAPS)
def test_every_pair_is_what_was_written(reader: FrameReader, gap: int) -> None:
    for number, num_frames in enumerate(NUM_FRAMES):  # 5 rows to a shard, so frames 5 and 10 open new ones
        for frame in range(max(0, -gap), num_frames - max(0, gap)):
            pair = reader.read_pair(clip_of(reader, number), frame, gap)
            assert pair.gap == gap
            assert pair.image.shape == (3, HEIGHT, WIDTH)
            error = np.abs(pair.image.permute(1, 2, 0).numpy().astype(int) - frame_of(number, frame).astype(int))
            assert error.mean() < 2  # of JPEG at quality 98; the noise of another frame makes it 9
            np.testing.assert_allclose(pair.flow.numpy(), flow_of(frame, gap), atol=MAX_ERROR_PX)


def test_image_alone_is_that_of_the_pair(reader: FrameReader) -> None:
    assert torch.equal(reader.read_image(1, 3), reader.read_pair(1, 3, 1).image)


def test_threads_read_the_same(uri: str) -> None:
    reader = FrameReader(open_dataset(uri))
    wanted = [(clip, frame) for clip in range(3) for frame in range(5)] * 6
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda key: reader.read_image(*key), wanted))
    alone = FrameReader(open_dataset(uri))
    assert all(torch.equal(image, alone.read_image(*key)) for key, image in zip(wanted, found, strict=True))


def test_pair_beyond_the_clip_is_an_error(reader: FrameReader) -> None:
    clip = clip_of(reader, 1)
    with pytest.raises(DatasetError, match=r"'clip_1', frame 5: no optical flow over gap 1"):
        reader.read_pair(clip, 5, 1)
    with pytest.raises(DatasetError, match=r"'clip_1' has frames 0 to 5, got 6"):
        reader.read_pair(clip, 6, -1)


def test_missing_gaps_are_named(tmp_path: Path) -> None:
    reader = FrameReader(open_dataset(write_dataset(tmp_path, num_frames=(3,), gaps=(1, -1))))
    reader.require_gaps((1,))
    with pytest.raises(DatasetError, match=r"over gaps \(1, -1\), training wants \[2, -2\] too"):
        reader.require_gaps((1, 2, -2))


def test_lost_and_damaged_shards_are_named(tmp_path: Path) -> None:
    snapshot = open_dataset(write_dataset(tmp_path, num_frames=(3, 3)))
    first, second = (tmp_path / "frames" / snapshot.videos[i].shards[0].path for i in range(2))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-40])
    reader = FrameReader(snapshot)
    for number, path in enumerate((first, second)):
        with pytest.raises(DatasetError, match=f"{path.name}.*can not be read"):
            reader.read_image(clip_of(reader, number), 0)
