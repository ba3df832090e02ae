"""An hour of video is streamed through the whole ingest: memory does not grow with its length."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from tasks.identity import Recipe
from tasks.ingest import prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.schema import SCHEMA_VERSION
from tests.video_files import numbered_frames, repeat_video, write_video

RECORDED_SECONDS = 4  # the rest is its packets again
RECIPE = Recipe(fps=0.2, max_side=320, gaps=(1, -1, 2, -2), schema_version=SCHEMA_VERSION)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Largest sum of the resident memory of this process and of those it started, looked at ten times a second."""
    peak, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            total = 0
            for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


@pytest.mark.slow
def test_an_hour_of_1080p_takes_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    images = [np.roll(numbered_frames(1, 1920, 1080)[0], 8 * number, axis=1) for number in range(RECORDED_SECONDS)]
    options = {"preset": "ultrafast", "crf": "35"}
    recorded = write_video(tmp_path / "recorded.mp4", images, frame_rate=1, codec_options=options)
    worker = IngestWorker(IngestJob(dataset_uri=str(tmp_path / "dataset"), recipe=RECIPE))
    peaks = {}
    for name, seconds in (("warm up", 60), ("minute", 60), ("hour", 3600)):
        video = repeat_video(recorded, tmp_path / f"{name}.mp4", seconds // RECORDED_SECONDS)
        (planned,) = prepare_ingest([str(video)], str(tmp_path / "dataset"), RECIPE).to_ingest
        with peak_memory() as peak:
            result = worker.run(planned)
        assert sum(shard.num_rows for shard in result.shards) == seconds * RECIPE.fps
        peaks[name] = peak[0]
    print({name: f"{peak / 2**20:.1f} MiB" for name, peak in peaks.items()})
    assert peaks["hour"] < peaks["minute"] + 40 * 2**20  # 6 frames; all of them would be 22 GB, of those kept 4
