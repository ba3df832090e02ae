"""Flow ``ablate-gwm``: a table of the paper becomes a table of ours, row by row, with the paper's numbers beside.

Rows run one after another, since each may fill the machine. What a row leaves is found again: a killed run goes on in
the middle of the training that it was in, and a row that was scored is not run again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger, task

from pipelines.evaluate import score_sequences
from pipelines.progress import publish_table
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import EXPERIMENTS, load_settings
from pipelines.scoring import require_writable
from pipelines.train import run_training
from tasks.ablation_plan import AblationPlan, AblationRequest, PlannedRow, plan_ablation
from tasks.ablation_results import RowOutcome, notes, read_outcome, table_rows, to_html, to_json, to_markdown
from tasks.adapt import AdaptationOptions
from tasks.config import load_experiment
from tasks.errors import AblationError
from tasks.features import MergingFeatures
from tasks.storage import location, prove_writable

BASE_EXPERIMENT = "gwm_unet_davis16"


@flow(name="ablate-gwm")
def ablate_gwm(
    table: str,
    root: str,
    dataset: str | None = None,
    benchmark: str = "davis16",
    experiment: str = BASE_EXPERIMENT,
    overrides: list[str] | None = None,
    rows: list[str] | None = None,
    sequences: list[str] | None = None,
    datasets: dict[str, str] | None = None,
    features: str = "decoder",
    feature_weights: str | None = None,
    feature_sha256: str | None = None,
    out: str | None = None,
    json_file: str | None = None,
) -> dict[str, Any]:
    """Train and score the rows of an ablation table; rows that were scored before are read.

    table: name in tasks/ablation.py. root: folder of the benchmark. experiment, overrides: what the rows vary.
    rows: names, all when None. datasets: by optical flow estimator, for the rows that name one.
    features: what segments are merged by for the paper's procedure; weights: of DINO, for that and for its clustering.
    out: folder for the table and its rows' scores; under the home folder when None. json_file: a copy of the table.
    Raises AblationError with the table when a row failed, after all others have run.
    """
    request = AblationRequest(
        table=table,
        experiment=experiment,
        benchmark=benchmark,
        root=root,
        dataset=dataset,
        datasets=datasets or {},
        sequences=tuple(sequences) if sequences else None,
        overrides=tuple(overrides or ()),
        rows=tuple(rows) if rows else None,
        merging=MergingFeatures(name=features, weights=feature_weights, sha256=feature_sha256),
    )
    plan = plan_rows(request, out, json_file)
    outcomes = [run_row(planned, plan.request) for planned in plan.rows]
    return require_all_rows(publish_ablation(plan, outcomes, json_file))


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def plan_rows(request: AblationRequest, out: str | None, json_file: str | None) -> AblationPlan:
    """Find what would stop the table after hours: a misspelt key, a missing benchmark, a place that is read-only."""
    folder = location(out or load_settings().home_path / "ablations")
    prove_writable(folder)
    require_writable(json_file, None)

    def resolve(overrides: Sequence[str]) -> Any:
        return load_experiment(request.experiment, EXPERIMENTS, overrides)

    return plan_ablation(request, resolve, folder)


def run_row(planned: PlannedRow, request: AblationRequest) -> RowOutcome:
    """Train and score one row unless that was done; whatever goes wrong becomes the row's reason."""
    sys.stderr.write(f"\n== {request.table}: {planned.row.title}\n")
    if planned.refusal is not None:
        return RowOutcome(row=planned.row, status="failed", reason=planned.refusal)
    try:
        return read_outcome(planned, "reused") or _train_and_score(planned, request)
    except Exception as error:  # the other rows are worth having
        get_run_logger().exception("row %s of %s failed", planned.row.name, request.table)
        return RowOutcome(row=planned.row, status="failed", reason=f"{type(error).__name__}: {error}")


def _train_and_score(planned: PlannedRow, request: AblationRequest) -> RowOutcome:
    model, baseline = "", planned.row.baseline
    if planned.dataset is not None and planned.version is not None:
        overrides, dataset = list(planned.overrides), planned.dataset
        trained = run_training(request.experiment, overrides, dataset, planned.version, None, None, None)
        model = trained["model"]
    score_sequences(
        folder=model,
        reference=model,
        benchmark=request.benchmark,
        root=request.root,
        sequences=list(request.sequences) if request.sequences else None,
        json_file=planned.scores,
        report=None,
        merging=request.merging,
        baseline=baseline,
        adaptation=AdaptationOptions(num_steps=steps) if (steps := planned.row.adapt_steps) else None,
    )
    outcome = read_outcome(planned, "done")
    assert outcome is not None  # written just now
    return outcome


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def publish_ablation(plan: AblationPlan, outcomes: list[RowOutcome], json_file: str | None) -> dict[str, Any]:
    """Write the table as JSON, Markdown and a page, and leave it with the flow run."""
    stem = f"{plan.table.name}-{plan.request.benchmark}"
    files = {name: plan.folder / f"{stem}.{name}" for name in ("json", "md", "html")}
    texts = {"json": to_json(plan, outcomes), "md": to_markdown(plan, outcomes), "html": to_html(plan, outcomes)}
    for name, place in files.items():
        place.write_bytes(texts[name].encode())
    if json_file is not None:
        location(json_file).write_bytes(texts["json"].encode())
    rows = table_rows(plan, outcomes)
    publish_table(rows, key="ablation", description=f"{plan.table.title}: ours beside the paper's")
    failed = [outcome.row.name for outcome in outcomes if outcome.status == "failed"]
    return {
        "title": plan.table.title,
        "rows": rows,
        "notes": list(notes(plan, outcomes)),
        "failed": failed,
        "markdown": files["md"].uri,
        "json": files["json"].uri,
        "page": files["html"].uri,
    }


@task
def require_all_rows(result: dict[str, Any]) -> dict[str, Any]:
    """Let the run fail when a row did, now that the table is safe."""
    if result["failed"]:
        raise AblationError(
            f"{len(result['failed'])} of {len(result['rows'])} rows failed: {', '.join(result['failed'])}; the table "
            f"with the reasons is {result['markdown']}. Run the same command again when the reasons are gone: the "
            "other rows are not run again",
            result["rows"],
        )
    return result
