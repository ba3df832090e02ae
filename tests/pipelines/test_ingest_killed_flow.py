"""Ingest as a flow run in a process of its own, as a worker of Prefect starts it, that is ended in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from pipelines.ingest import ingest_footage
from tasks.catalog import dataset_exists, open_dataset
from tests.tasks.small_footage import write_clip
from tests.tasks.test_pool import wait_until

ROOT = Path(__file__).resolve().parents[2]
NUM_CLIPS, NUM_FRAMES = 8, 3
RUN_OF_A_WORKER = """
import sys
from pipelines.ingest import ingest_footage

if __name__ == "__main__":
    ingest_footage([sys.argv[1]], sys.argv[2], batch_videos=1)
"""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    for index in range(NUM_CLIPS):
        write_clip(tmp_path / "footage" / f"clip{index}", NUM_FRAMES, index)
    return tmp_path / "footage"


@contextmanager
def under_way(footage: Path, dataset: str, actors: int) -> Iterator[subprocess.Popen[bytes]]:
    """A flow run that has published something and not all."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "GWM_INGEST_ACTORS": str(actors),
    }
    command = [sys.executable, "-c", RUN_OF_A_WORKER, str(footage), dataset]
    with subprocess.Popen(command, cwd=footage.parent, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: dataset_exists(dataset) or process.poll() is not None, seconds=240)  # on a busy machine
            assert process.poll() is None
            yield process
        finally:
            process.kill()


def require_whole(dataset: str, num_videos: int) -> None:
    """Every visible video has all its frames, and each of them once."""
    snapshot = open_dataset(dataset)
    assert [video.num_frames for video in snapshot.videos] == [NUM_FRAMES] * num_videos
    shards = [snapshot.frames / shard.path for video in snapshot.videos for shard in video.shards]
    columns = ["video_id", "frame_index"]
    rows = [tuple(row.values()) for shard in shards for row in pq.read_table(shard.uri, columns=columns).to_pylist()]
    assert sorted(rows) == sorted((video.video_id, frame) for video in snapshot.videos for frame in range(NUM_FRAMES))


def ingest_the_rest(footage: Path, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    num_before = len(open_dataset(dataset).videos)
    assert 1 <= num_before < NUM_CLIPS
    require_whole(dataset, num_before)
    monkeypatch.setenv("GWM_INGEST_ACTORS", "0")
    summary = ingest_footage([str(footage)], dataset, batch_videos=4)
    assert (summary["num_ingested"], summary["num_skipped"]) == (NUM_CLIPS - num_before, num_before)
    require_whole(dataset, NUM_CLIPS)


def newest_run() -> Any:
    with get_client(sync_client=True) as client:
        return max(client.read_flow_runs(), key=lambda run: run.created)


def test_a_flow_run_whose_process_is_killed_completes_when_it_runs_again(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = str(tmp_path / "dataset")
    with under_way(footage, dataset, actors=0) as process:
        process.kill()
    ingest_the_rest(footage, dataset, monkeypatch)


def test_a_cancelled_flow_run_ends_its_actors_and_completes_when_it_runs_again(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = str(tmp_path / "dataset")
    with under_way(footage, dataset, actors=1) as process:
        started_by_it = psutil.Process(process.pid).children(recursive=True)
        assert any("ray::" in child.name() for child in started_by_it)
        process.send_signal(signal.SIGTERM)  # what a process worker does first; it kills after a while
        assert process.wait(60) != 0
    _, alive = psutil.wait_procs(started_by_it, timeout=30)
    assert not alive
    state = newest_run().state
    assert state.is_crashed() or state.is_cancelled(), state
    ingest_the_rest(footage, dataset, monkeypatch)
