"""Ingests that are killed at random moments, again and again: what is visible is always whole, and nothing is lost.

Random, and the same in every run: the moments are drawn by seed from the steps of an undisturbed ingest.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from tasks.catalog import dataset_exists, list_versions, open_dataset
from tasks.dead_letters import read_rejected
from tasks.ingest import IngestProgress, prepare_ingest, run_ingest
from tasks.settings import Settings
from tasks.snapshot import DatasetSnapshot
from tasks.storage import location
from tasks.vacuum import vacuum
from tests.tasks.killed_ingest import MAKES_VISIBLE, Job, run, start
from tests.tasks.small_footage import RECIPE, shard_files, write_clip
from tests.tasks.test_pool import wait_until

FRAMES = {"clip0": 3, "clip1": 2, "clip2": 4, "clip3": 3}
OTHER_RECIPE = RECIPE.model_copy(update={"max_side": 48})
KILLED = -signal.SIGKILL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # a minute on an idle machine; others may keep it busy


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips, and one that is too short and so becomes a dead letter."""
    folder = tmp_path_factory.mktemp("killed") / "footage"
    for seed, (clip, num_frames) in enumerate(FRAMES.items()):
        write_clip(folder / clip, num_frames, seed)
    write_clip(folder / "short", 1, 9)
    return folder


@dataclass(frozen=True)
class Undisturbed:
    """Rows of an ingest that nobody killed, by recipe, and how many steps it took: everywhere, and where it matters."""

    rows: dict[str, pa.Table]
    num_steps: dict[tuple[str, ...], int]


@pytest.fixture(scope="module")
def undisturbed(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    report, num_steps, rows = folder / "steps", {}, {}
    for where, recipe in (((), OTHER_RECIPE), (MAKES_VISIBLE, RECIPE)):
        dataset = folder / f"dataset{len(where)}"
        job = Job(
            sources=(str(footage),),
            dataset=str(dataset),
            recipe=recipe,
            fail=("clip3",),
            where=where,
            report=str(report),
        )
        assert run(job) == 0
        num_steps[where] = json.loads(report.read_text())
        assert run(replace(job, fail=())) == 0  # clip3, whose dead letter goes
        rows[recipe.hash()] = rows_of(open_dataset(str(dataset)))
    return Undisturbed(rows, num_steps)


def rows_of(snapshot: DatasetSnapshot) -> pa.Table:
    """All visible rows, in an order that does not depend on how they came there. Shards are what their names say."""
    tables = []
    for video in snapshot.videos:
        for shard in video.shards:
            data = (snapshot.frames / shard.path).read_bytes()
            assert hashlib.sha256(data).hexdigest()[:24] in shard.path
            tables.append(pq.read_table(pa.BufferReader(data)))
    return pa.concat_tables(tables).sort_by([("clip", "ascending"), ("frame_index", "ascending")])


def check_what_is_visible(dataset: str, expected: Undisturbed) -> None:
    """Every video is there once, under one recipe, with all its frames, or not at all."""
    if not dataset_exists(dataset):
        return
    snapshot = open_dataset(dataset)
    assert all(count == 1 for count in Counter(video.video_id for video in snapshot.videos).values())
    for video in snapshot.videos:
        assert video.num_frames == FRAMES[video.clip]
    rows = rows_of(snapshot)
    for recipe_hash, all_rows in expected.rows.items():
        have = rows.filter(pa.compute.equal(rows["recipe_hash"], recipe_hash))
        clips = pa.compute.unique(have["clip"])
        assert have.equals(all_rows.filter(pa.compute.is_in(all_rows["clip"], clips)))
    letters = Counter((letter.source, letter.video_id, letter.recipe_hash) for letter in read_rejected(dataset))
    assert all(count == 1 for count in letters.values())


def check_the_end(dataset: str, recipe_hash: str, expected: Undisturbed) -> None:
    """Row by row what an undisturbed ingest has; versions count up; what is left over goes."""
    assert rows_of(open_dataset(dataset)).equals(expected.rows[recipe_hash])
    assert {Path(letter.source).name for letter in read_rejected(dataset)} == {"short"}
    last = list_versions(dataset)[-1]
    assert (last.num_videos, last.num_frames) == (len(FRAMES), sum(FRAMES.values()))
    vacuum(dataset, older_than_hours=0)
    snapshot = open_dataset(dataset)
    assert rows_of(snapshot).equals(expected.rows[recipe_hash])
    for version in list_versions(dataset):
        rows_of(open_dataset(dataset, version.version))
    visible = {shard.path for version in list_versions(dataset) for shard in shards_of(dataset, version.version)}
    assert {place.name for place in (location(dataset) / "frames").list()} == visible


def shards_of(dataset: str, version: int) -> list[object]:
    return [shard for video in open_dataset(dataset, version).videos for shard in video.shards]


class Killer:
    """Starts ingests of one dataset, one or two at once, that die at random steps, until it is done."""

    def __init__(self, footage: Path, expected: Undisturbed, seed: int) -> None:
        self._footage, self._expected = footage, expected
        self._random = random.Random(seed)
        self.num_kills = 0

    def ingest(self, dataset: str, *, max_kills: int) -> None:
        """Kill until ``max_kills`` or until an ingest lived through it, then let one more end, for both recipes."""
        for recipe, fail in ((RECIPE, ("clip3",)), (OTHER_RECIPE, ())):
            job = Job(sources=(str(self._footage),), dataset=dataset, recipe=recipe, fail=fail)
            before = self.num_kills
            while self.num_kills - before < max_kills and KILLED in (codes := self._kill(job)):
                self.num_kills += codes.count(KILLED)
                check_what_is_visible(dataset, self._expected)
                job = replace(job, fail=())  # of three failures the plan would say that they are enough
            assert run(replace(job, fail=())) == 0
            assert {Path(letter.source).name for letter in read_rejected(dataset)} == {"short"}
        check_the_end(dataset, OTHER_RECIPE.hash(), self._expected)

    def _kill(self, job: Job) -> list[int]:
        processes = [start(self._doomed(job)) for _ in range(self._random.choice([1, 1, 2]))]
        codes = [process.wait() for process in processes]
        assert set(codes) <= {0, KILLED}
        return codes

    def _doomed(self, job: Job) -> Job:
        where = self._random.choice([(), MAKES_VISIBLE, MAKES_VISIBLE])
        return replace(job, where=where, die_at=self._random.randrange(self._expected.num_steps[where]))


def test_fifty_random_kills_lose_nothing_and_leave_nothing_twice(
    footage: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    killer = Killer(footage, undisturbed, seed=4)
    for number in range(100):
        killer.ingest(str(tmp_path / f"dataset{number}"), max_kills=4)
        if killer.num_kills >= 50:
            return
    raise AssertionError(f"only {killer.num_kills} of 100 x 8 ingests were killed")


def test_kills_on_an_object_store(footage: Path, undisturbed: Undisturbed, s3_root: str) -> None:
    killer = Killer(footage, undisturbed, seed=5)
    killer.ingest(f"{s3_root}/dataset", max_kills=2)
    assert killer.num_kills >= 2


def test_an_object_store_that_dies_and_comes_back(
    footage: Path, undisturbed: Undisturbed, s3_store: S3Server, s3_root: str
) -> None:
    dataset = f"{s3_root}/dataset"
    job = Job(sources=(str(footage),), dataset=dataset, recipe=RECIPE, batch_videos=1)
    process = start(job)
    wait_until(lambda: dataset_exists(dataset))
    s3_store.kill()
    code = process.wait()
    s3_store.start()
    assert code == 1
    check_what_is_visible(dataset, undisturbed)
    assert run(job) == 0
    check_the_end(dataset, RECIPE.hash(), undisturbed)


def test_actors_that_are_killed_cost_an_attempt_and_no_video(
    ray_cluster: None, footage: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    dataset, killed = str(tmp_path / "dataset"), []

    def kill_an_actor(progress: IngestProgress) -> None:
        if not killed:
            actors = [process for process in psutil.Process().children(recursive=True) if is_actor(process)]
            killed.append(actors[0].pid)
            actors[0].kill()

    plan = prepare_ingest([str(footage)], dataset, RECIPE)
    summary = run_ingest(plan, dataset, Settings(ingest_actors=2), on_progress=kill_an_actor)
    assert killed
    assert (summary.num_ingested, summary.num_rejected) == (4, 1)
    check_what_is_visible(dataset, undisturbed)
    assert open_dataset(dataset).num_frames == sum(FRAMES.values())


def is_actor(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "ray::_Actor" in " ".join(process.cmdline())
    return False


def test_a_killed_driver_takes_its_actors_with_it(
    ray_cluster: None, footage: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    settings = Settings(ray_address=ray.get_runtime_context().gcs_address, ingest_actors=1)
    job = Job(sources=(str(footage),), dataset=str(dataset), recipe=RECIPE, batch_videos=3, settings=settings)
    before = ray.available_resources()["CPU"]
    process = start(job)
    wait_until(lambda: len(shard_files(dataset)) >= 2)  # a batch is under way
    process.kill()
    assert process.wait() == KILLED
    wait_until(lambda: ray.available_resources()["CPU"] == before)
    check_what_is_visible(str(dataset), undisturbed)
    assert run(replace(job, settings=Settings(ingest_actors=0))) == 0
    check_what_is_visible(str(dataset), undisturbed)
    assert open_dataset(str(dataset)).num_frames == sum(FRAMES.values())
