"""Datasets that the real ingest wrote, in this process and without Ray."""

from __future__ import annotations

from pathlib import Path

from tasks.catalog import publish
from tasks.clips import JudgedClip, clip_history
from tasks.identity import Recipe
from tasks.ingest import prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tests.tasks.small_footage import RECIPE


def ingest_here(source: Path, dataset: str, recipe: Recipe = RECIPE) -> str:
    """Ingest all footage below ``source`` that is new, in one transaction; return the dataset's URI."""
    worker = IngestWorker(IngestJob(dataset_uri=dataset, recipe=recipe))
    plan = prepare_ingest([str(source)], dataset, recipe)
    done = [worker.run(video) for video in plan.to_ingest]
    assert not [work.refusal for work in done if work.refusal]
    clip_history(dataset).record([JudgedClip(facts=facts) for work in done for facts in work.clips])
    publish(dataset, [shard for work in done for shard in work.shards])
    return dataset
