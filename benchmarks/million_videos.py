"""An ingest of very many videos with a fake worker: what the process that drives it costs, and whether it grows.

Everything but the work on a video is real: the plan, the pool, the progress, the look at each shard, the transactions
and the checkpoints of the log. The fake worker gives each video one shard by a hard link to one file, and refuses one
video in a hundred. With ``--actors 0`` the worker is called in this process, so that what is measured is the driver
alone; more adds Ray. A small ingest goes first, so that imports and first calls are not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from tasks.catalog import newest_version, open_dataset
from tasks.clip_facts import ClipFacts
from tasks.errors import FootageError
from tasks.fingerprint import NUM_BYTES
from tasks.footage import FootageItem
from tasks.identity import Recipe
from tasks.ingest import DEFAULT_BATCH_VIDEOS, IngestProgress, run_ingest
from tasks.ingest_plan import IngestPlan, PlannedVideo, WantedVideo
from tasks.ingest_worker import IngestJob, WorkDone, refusal_of
from tasks.ledger import ledger_of
from tasks.schema import SCHEMA_VERSION
from tasks.settings import Settings
from tasks.snapshot import WrittenShard

RECIPE = Recipe(schema_version=SCHEMA_VERSION)
FRAMES_PER_VIDEO = 100
SHARD_BYTES = 64
LINKS_PER_FILE = 60_000  # ext4 allows 65 000
REFUSED_EVERY = 100
WARM_UP_VIDEOS = 400
NUM_LINES = 10
VIDEOS_BY_DEFAULT = 20_000  # of `make bench`: a minute at most


class FakeWorker:
    """Stands in for ``IngestWorker``. Links are counted per process, in which there is a worker per batch."""

    _num_links = 0
    _file: Path

    def __init__(self, job: IngestJob) -> None:
        self._frames = Path(job.dataset_uri) / "frames"
        self._frames.mkdir(parents=True, exist_ok=True)

    def run(self, video: PlannedVideo) -> WorkDone:
        if is_refused(video):
            refusal = refusal_of(video, RECIPE, FootageError("corrupt", "one in a hundred"))
            return WorkDone(shards=(), refusal=refusal, seconds=0.0)
        name = f"{video.wanted.video_id[:16]}-000000-{video.wanted.video_id[:24]}.parquet"
        if FakeWorker._num_links % LINKS_PER_FILE == 0:
            FakeWorker._file = self._frames.parent / f"shard-{os.getpid()}-{FakeWorker._num_links}"
            FakeWorker._file.write_bytes(bytes(SHARD_BYTES))
        os.link(FakeWorker._file, self._frames / name)
        FakeWorker._num_links += 1
        shard = WrittenShard(
            path=name,
            num_bytes=SHARD_BYTES,
            num_rows=FRAMES_PER_VIDEO,
            first_frame=0,
            first_time_seconds=0.0,
            last_time_seconds=4.0,
            video_id=video.wanted.video_id,
            recipe=RECIPE,
            clip=video.clip,
            source=video.source,
            width=854,
            height=480,
        )
        return WorkDone(shards=(shard,), clips=(_facts(shard),), refusal=None, seconds=0.0)


def is_refused(video: PlannedVideo) -> bool:
    """Whether the fake worker refuses it."""
    return video.clip.endswith(f"{REFUSED_EVERY - 1:02}")


def _facts(shard: WrittenShard) -> ClipFacts:
    """A clip that looks like no other: its fingerprint is random."""
    return ClipFacts(
        video_id=shard.video_id,
        recipe_hash=RECIPE.hash(),
        shot=0,
        clip=shard.clip,
        source=shard.source,
        first_frame=0,
        num_frames=shard.num_rows,
        seconds=4.0,
        mean_motion=0.01,
        too_short=False,
        is_static=False,
        fingerprint=hashlib.shake_128(shard.video_id.encode()).digest(NUM_BYTES),
    )


def fake_plan(num_videos: int) -> IngestPlan:
    """A plan for videos that do not exist."""
    return IngestPlan(recipe=RECIPE, videos=tuple(map(_fake_video, range(num_videos))))


def _fake_video(number: int) -> PlannedVideo:
    clip = f"camera_{number:07d}"
    item = FootageItem(uri=f"s3://footage/site-{number % 97}/{clip}.mp4", clip=clip, kind="video")
    wanted = WantedVideo(item=item, video_id=hashlib.sha256(clip.encode()).hexdigest())
    return PlannedVideo(wanted=wanted, action="ingest", reason="new", explanation="new", clip=clip)


def peak_megabytes() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_seconds() -> float:
    """Time that this process and those that it waited for, which write large checkpoints, had a processor."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


@contextmanager
def _fake_work() -> Iterator[None]:
    with patch("tasks.ingest_batch.IngestWorker", FakeWorker):
        yield


def simulate(num_videos: int, actors: int, folder: Path, batch_videos: int = DEFAULT_BATCH_VIDEOS) -> dict[str, float]:
    """Ingest and check; returns what it took. Prints a line for every tenth part."""
    dataset = str(folder / "dataset")
    started_with = peak_megabytes()
    plan = fake_plan(num_videos)
    planned = peak_megabytes()
    print(f"plan of {num_videos} videos: {planned - started_with:.0f} MB", flush=True)
    started, last, part = time.monotonic(), cpu_seconds(), max(1, num_videos // NUM_LINES)
    started_cpu = last

    def tell(progress: IngestProgress) -> None:
        nonlocal last
        if progress.num_done % part == 0:
            now = cpu_seconds()
            print(
                f"  {progress.num_done:>9} videos  {time.monotonic() - started:7.1f} s  "
                f"{(now - last) / part * 1e3:6.3f} ms of CPU a video  version {newest_version(dataset)}  "
                f"peak {peak_megabytes():.0f} MB",
                flush=True,
            )
            last = now

    with _fake_work():
        summary = run_ingest(plan, dataset, Settings(ingest_actors=actors), batch_videos=batch_videos, on_progress=tell)
    seconds = time.monotonic() - started
    ledger = ledger_of(dataset)
    refused = sum(map(is_refused, plan.videos))
    if (summary.num_ingested, ledger.num_videos, summary.num_rejected) != (*2 * [num_videos - refused], refused):
        raise AssertionError(f"{summary.num_ingested} ingested, {ledger.num_videos} there, of {num_videos}")
    log = folder / "dataset" / "frames" / "_delta_log"
    return {
        "seconds": seconds,
        "cpu_ms_a_video": 1e3 * (cpu_seconds() - started_cpu) / num_videos,
        "commits": summary.version + 1,
        "checkpoints": len(list(log.glob("*.checkpoint.parquet"))),
        "log_megabytes": sum(path.stat().st_size for path in log.iterdir()) / 1e6,
        "driver_megabytes": peak_megabytes() - planned,
        "plan_bytes_a_video": 1e6 * (planned - started_with) / num_videos,
        "driver_bytes_a_video": 1e6 * (peak_megabytes() - planned) / num_videos,
        "peak_megabytes": peak_megabytes(),
        "checkpointing_megabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def main(arguments: list[str] | None = None) -> None:
    """Print what a simulated ingest takes of its driver, and how long the dataset then takes to open."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks million_videos", description=main.__doc__)
    parser.add_argument("--videos", type=int, default=VIDEOS_BY_DEFAULT)
    parser.add_argument("--actors", type=int, default=0, help="Ray actors; 0 measures the driver alone")
    parser.add_argument("--folder", help="where the dataset lies; a temporary folder unless given")
    parser.add_argument("--open", action="store_true", help="open the dataset as a reader does, in the end")
    options = parser.parse_args(arguments or [])
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        with redirect_stdout(io.StringIO()):
            simulate(WARM_UP_VIDEOS, options.actors, Path(folder) / "warm-up")
        taken = simulate(options.videos, options.actors, Path(folder))
        print(", ".join(f"{name} {value:.3f}".rstrip("0").rstrip(".") for name, value in taken.items()))
        if options.open:
            started = time.monotonic()
            num_videos = len(open_dataset(str(Path(folder) / "dataset")).videos)
            print(f"opened {num_videos} videos: {time.monotonic() - started:.1f} s, peak {peak_megabytes():.0f} MB")


if __name__ == "__main__":
    main()
