"""How many bytes a random sample costs, counted where the reader asks for them, on real footage at its full size."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.catalog import open_dataset, publish
from tasks.dataset import FrameReader
from tasks.identity import Recipe
from tasks.ingest import prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.schema import SCHEMA_VERSION
from tasks.storage import Location
from tests.shared import DAVIS, shared_or_skip

RECIPE = Recipe(gaps=(1, -1, 2, -2), schema_version=SCHEMA_VERSION)
SEQUENCES = ("cows", "horsejump-high", "paragliding-launch", "scooter-black")
NUM_FRAMES = 5
PAGE_HEADERS = 200  # bytes: Parquet's own, of two column chunks


class CountingFile(io.FileIO):
    """A file that knows how many bytes were read from it."""

    num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        CountingFile.num_bytes += len(data)
        return data


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = shared_or_skip(DAVIS / "JPEGImages" / "480p")
    folder = tmp_path_factory.mktemp("real")
    worker = IngestWorker(IngestJob(dataset_uri=str(folder / "dataset"), recipe=RECIPE))
    for name in SEQUENCES:
        (folder / name).mkdir()
        for path in sorted((root / name).iterdir())[:NUM_FRAMES]:
            shutil.copy(path, folder / name)
        (video,) = prepare_ingest([str(folder / name)], str(folder / "dataset"), RECIPE).videos
        publish(str(folder / "dataset"), worker.run(video).shards)
    return str(folder / "dataset")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: list[CountingFile] = []

    def open_counting(place: Location) -> pa.NativeFile:
        opened.append(CountingFile(place.local_path))
        return pa.PythonFile(opened[-1], mode="r")

    monkeypatch.setattr(Location, "open_input", open_counting)
    CountingFile.num_bytes = 0
    yield
    for file in opened:
        file.close()


@pytest.mark.shared
def test_a_random_sample_reads_a_frame_and_one_flow_and_nothing_else(dataset: str, counted: None) -> None:
    snapshot = open_dataset(dataset)
    reader = FrameReader(snapshot)
    stored = {clip.clip: clip for clip in snapshot.clips}
    for clip in range(len(reader.clips)):
        reader.read_image(clip, 0)  # from here on its footer is known
    sizes = []
    for clip in range(len(reader.clips)):
        (shard,) = stored[reader.clip_name(clip)].shards
        rows = pq.read_table((snapshot.frames / shard.path).local_path).to_pylist()
        for frame, gap in ((0, 1), (4, -1), (2, 2), (2, -2)):
            before = CountingFile.num_bytes
            pair = reader.read_pair(clip, frame, gap)
            num_read = CountingFile.num_bytes - before
            assert pair.flow.shape == (2, 480, 854)
            column = f"flow_{'p' if gap > 0 else 'm'}{abs(gap)}"
            flow, jpeg = len(rows[frame][column]), len(rows[frame]["jpeg"])
            assert flow + jpeg < num_read <= flow + jpeg + PAGE_HEADERS
            sizes.append((num_read, flow))
    num_read, flow = np.max(sizes, axis=0)
    print(f"at most {num_read:.0f} bytes a sample and {flow:.0f} a flow, on average {np.mean(sizes, axis=0)}")
    assert num_read <= 300_000
    assert flow <= 250_000
