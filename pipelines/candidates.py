"""Scores the checkpoints that a model was chosen among, to see what choosing without labels costs."""

from __future__ import annotations

from typing import Any

from prefect import task

from pipelines.progress import Progress, publish_table
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import load_settings
from pipelines.scoring import scored_at_once
from tasks.benchmarks import open_benchmark
from tasks.candidate_costs import candidate_rows, cost_rows, find_candidates
from tasks.devices import own_device
from tasks.evaluate import EvaluationJob, evaluate


def require_candidates(folder: str) -> None:
    """Raise ModelNotFoundError before minutes of scoring where there is nothing to compare the model with."""
    find_candidates(folder, load_settings())


@task(retries=1, retry_delay_seconds=10, **NOT_FOR_BAD_INPUT)
def score_candidates(
    folder: str, benchmark: str, root: str, sequences: list[str] | None, crf: str | None
) -> dict[str, Any]:
    """Score every checkpoint that the model in ``folder`` was chosen among; return the rows of both tables.

    The scores see annotations, so they go into the tables only: not to MLflow, and not into the model.
    """
    settings = load_settings()
    candidates = find_candidates(folder, settings)
    opened = open_benchmark(benchmark, root, sequences)
    j_by_step: dict[int, float] = {}
    with Progress("evaluate checkpoints", key="evaluate-checkpoints") as progress:
        for candidate in candidates:
            job = EvaluationJob(model_uri=candidate.folder, device=own_device(settings), crf=crf, num_pictured=0)
            parallel = scored_at_once(settings, len(opened.sequences))
            report = evaluate(job, opened, settings=settings, parallel=parallel).report
            j_by_step[candidate.scores.step] = report.headline.value
            note = f"step {candidate.scores.step} J {report.headline.value:.3f}"
            progress(len(j_by_step), len(candidates), note)
    scores = [candidate.scores for candidate in candidates]
    return {"candidates": candidate_rows(scores, j_by_step), "costs": cost_rows(scores, j_by_step)}


@task
def publish_candidates(result: dict[str, Any]) -> None:
    """Leave both tables with the flow run."""
    publish_table(result["candidates"], key="candidates", description="Checkpoints that the model was chosen among")
    publish_table(result["costs"], key="checkpoint-costs", description="What choosing without labels costs")
