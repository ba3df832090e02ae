"""The corpus through the worker of the ingest: every input ends in its row or in its frames, and reaches nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import pytest

from tasks.dead_letters import Refusal, read_rejected, record_rejected
from tasks.decode_limits import DecodeLimits
from tasks.errors import printable
from tasks.footage_files import storable
from tasks.ingest import prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tests.hostile.corpus import MAX_FRAMES, Case, make_corpus
from tests.hostile.watch import Watch
from tests.tasks.small_footage import RECIPE
from tests.video_files import write_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the proof that nothing is opened is Linux's")

LIMITS = DecodeLimits(max_frames=MAX_FRAMES, stall_seconds=20, cpu_seconds=20, wall_seconds=40, memory_mb=1024)


@dataclass(frozen=True, kw_only=True)
class Ingested:
    cases: list[Case]
    refusals: dict[str, Refusal]
    num_frames: dict[str, int]
    was_opened: bool
    was_connected: bool


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    folder = tmp_path_factory.mktemp("outside")
    write_video(folder / "canary.mp4")
    watching = Watch(folder)
    watching.folder = folder  # type: ignore[attr-defined]
    yield watching
    watching.close()


@pytest.fixture(scope="module")
def canary(watch: Watch) -> Path:
    return watch.folder / "canary.mp4"  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, watch: Watch, canary: Path) -> Ingested:
    """Plan everything at once, and do it as an actor does."""
    base = tmp_path_factory.mktemp("hostile")
    root, dataset = base / "corpus", str(base / "dataset")
    root.mkdir()
    cases = make_corpus(root, canary, watch.port)
    watch.was_opened()  # by what was written
    plan = prepare_ingest([str(root), *(str(case.source) for case in cases if case.is_named)], dataset, RECIPE)
    refusals = {refusal.source: refusal for refusal in plan.refusals}
    num_frames = {}
    worker = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE, limits=LIMITS))
    by_source = {str(case.source): case for case in cases}
    for video in plan.videos:
        assert video.action == "ingest", (video.source, video.explanation)
        case = by_source[video.source]
        if case.before_decoding is not None:
            case.before_decoding()
        done = worker.run(video)
        num_frames[video.source] = sum(shard.num_rows for shard in done.shards)
        if done.refusal is not None:
            refusals[video.source] = done.refusal
    was_opened, was_connected = watch.was_opened(), watch.was_connected()
    record_rejected(dataset, list(refusals.values()))
    stored = {letter.source: letter for letter in read_rejected(dataset)}
    assert {source: letter.reason for source, letter in stored.items()} == {
        source: refusal.reason for source, refusal in refusals.items()
    }
    return Ingested(
        cases=cases,
        refusals=refusals,
        num_frames=num_frames,
        was_opened=was_opened,
        was_connected=was_connected,
    )


def test_every_input_ends_as_it_has_to(ingested: Ingested) -> None:
    got: dict[str, str | int | None] = {}
    for case in ingested.cases:
        source = str(case.source)
        refusal = ingested.refusals.get(storable(source))
        got[source] = refusal.reason if refusal else ingested.num_frames.get(source)
    assert got == {str(case.source): case.ends for case in ingested.cases}
    assert len(got) >= 40


def test_no_row_was_our_own_fault_or_holds_what_a_terminal_obeys(ingested: Ingested) -> None:
    for refusal in ingested.refusals.values():
        assert refusal.reason not in ("internal", "crashed", "timeout"), refusal
        assert refusal.detail == printable(refusal.detail)


def test_nothing_outside_was_opened_and_nobody_connected(ingested: Ingested, watch: Watch, canary: Path) -> None:
    assert not ingested.was_opened
    assert not ingested.was_connected
    # and the corpus is armed, and the watch awake: a demuxer that may guess, or is told, opens the canary
    concat = next(case.source for case in ingested.cases if case.source.name == "ffconcat.mp4")
    with av.open(str(concat), options={"safe": "0"}) as container:
        assert next(container.decode(video=0)).width == 64
    assert watch.was_opened()
    playlist = next(case.source for case in ingested.cases if case.source.name == "hls_http.mp4")
    before_2025 = {"allowed_extensions": "ALL", "extension_picky": "0", "protocol_whitelist": "file,http,tcp"}
    with pytest.raises(av.FFmpegError):
        av.open(str(playlist), format="hls", timeout=0.2, options=before_2025)
    assert watch.was_connected()
