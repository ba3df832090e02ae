"""Flow ``evaluate-model``: a model and a benchmark become scores, a page and rows in MLflow."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from prefect import flow, task

from pipelines.candidates import publish_candidates, require_candidates, score_candidates
from pipelines.evaluate_images import score_images
from pipelines.progress import Progress, publish_table
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import load_settings
from pipelines.scoring import require_writable, scored_at_once, write_scores
from tasks.adapt import AdaptationOptions, AdaptationRate
from tasks.adapted_scores import beside_adapted, join_reports
from tasks.benchmarks import open_benchmark
from tasks.benchmarks.images import IMAGE_BENCHMARKS
from tasks.clustering import ClusteringBaseline
from tasks.devices import own_device
from tasks.errors import ConfigError
from tasks.evaluate import EvaluationJob, EvaluationProgress, evaluate, log_evaluation
from tasks.features import MergingFeatures
from tasks.json_values import with_nulls
from tasks.registry import resolve_model
from tasks.scores import LABEL_FREE, EvaluationReport


@flow(name="evaluate-model")
def evaluate_model(
    model: str,
    benchmark: str,
    root: str,
    sequences: list[str] | None = None,
    json_file: str | None = None,
    report: str | None = None,
    features: str = "decoder",
    feature_weights: str | None = None,
    feature_sha256: str | None = None,
    adapt_steps: int = 0,
    network_size: str = "auto",
    crf: str | None = None,
    adapt_rate: str = "final",
    candidates: bool = False,
) -> dict[str, Any]:
    """Score a model on annotated sequences or still images. Labels are used to score, never to decide.

    model: reference. root: folder of the benchmark. sequences: names of those, or of images; all when None.
    network_size: at what size the network looks at still images: auto, native, model, or rows x columns.
    adapt_steps: scores the model also after so many steps of adaptation to each sequence, beside it as it is.
    adapt_rate: of these steps: final, where the training ended, or full, as it was given.
    features: what segments are merged by for the ground-truth choice: decoder, colour, motion, or dino with weights.
    crf: refines masks by a dense CRF before they are scored: gwm or rcf; every number then says so.
    candidates: score also the checkpoints that the model was chosen among, to see what choosing without labels costs.
    json_file, report: where scores and the page go; both are logged to the model's MLflow run in any case.
    Returns the tables and the headline: mean J with the foreground chosen without labels.
    """
    scored = find_model(model), model, benchmark, root, sequences
    places, merging = (json_file, report), _merging(features, feature_weights, feature_sha256)
    if benchmark in IMAGE_BENCHMARKS:
        _refuse_for_images(adapt_steps, candidates=candidates)
        result = score_images(*scored, *places, merging, network_size, crf)
    else:
        adaptation = _adaptation(adapt_steps, adapt_rate)
        result = score_clips(scored, places, merging, crf, adaptation, candidates=candidates)
    publish_scores(result)
    return result


Scored = tuple[str, str, str, str, list[str] | None]
"""Folder and reference of a model, benchmark, its folder, and the sequences."""


def score_clips(
    scored: Scored,
    places: tuple[str | None, str | None],
    merging: MergingFeatures,
    crf: str | None,
    adaptation: AdaptationOptions | None,
    *,
    candidates: bool,
) -> dict[str, Any]:
    """Score the model as it is, then adapted, then the checkpoints it was chosen among, as far as these are asked for.

    places: of the JSON and of the page.
    """
    folder, _, benchmark, root, sequences = scored
    if candidates:
        require_candidates(folder)
    result = score_sequences(*scored, *places, merging, crf=crf)
    if adaptation is not None:
        json_file, report = places
        beside = json_file and f"{json_file}.adapted", report and f"{report}/adapted"
        result = join_adapted(result, score_sequences(*scored, *beside, merging, adaptation=adaptation, crf=crf))
    if candidates:
        result |= (compared := score_candidates(folder, benchmark, root, sequences, crf))
        publish_candidates(compared)
    return result


def _merging(name: str, weights: str | None, sha256: str | None) -> MergingFeatures:
    return MergingFeatures(name=name, weights=weights, sha256=sha256)


def _adaptation(num_steps: int, rate: str) -> AdaptationOptions | None:
    return AdaptationOptions(num_steps=num_steps, rate=cast(AdaptationRate, rate)) if num_steps else None


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def find_model(model: str) -> str:
    """Return the local folder of the model that a reference names."""
    return str(resolve_model(model, load_settings()))


@task(retries=1, retry_delay_seconds=10, **NOT_FOR_BAD_INPUT)
def score_sequences(
    folder: str,
    reference: str,
    benchmark: str,
    root: str,
    sequences: list[str] | None,
    json_file: str | None,
    report: str | None,
    merging: MergingFeatures | None = None,
    baseline: ClusteringBaseline | None = None,
    adaptation: AdaptationOptions | None = None,
    crf: str | None = None,
) -> dict[str, Any]:
    """Score every sequence on Ray, write what was asked for, and log to MLflow.

    baseline: scored in place of a model; ``folder`` is not looked at then. adaptation: to each sequence, if any.
    crf: settings of the dense CRF that refines the masks.
    """
    settings = load_settings()
    opened = open_benchmark(benchmark, root, sequences)
    require_writable(json_file, report)
    with Progress(f"evaluate on {benchmark}", key="evaluate") as progress:
        evaluation = evaluate(
            EvaluationJob(
                model_uri=folder,
                device=own_device(settings),
                merging=merging or MergingFeatures(),
                baseline=baseline,
                adaptation=adaptation,
                crf=crf,
            ),
            opened,
            settings=settings,
            parallel=scored_at_once(settings, len(opened.sequences)),
            reference=reference if adaptation is None else f"{reference}, {adaptation.sentence}",
            on_progress=lambda now: progress(now.num_done, now.num_sequences, _note(now)),
        )
    page = write_scores(evaluation, json_file, report)
    run = log_evaluation(evaluation, settings)
    return {
        "headline": evaluation.report.headline.value,
        "coverage": evaluation.report.coverage,
        "sequences": _sequence_rows(evaluation.report),
        "averages": _average_rows(evaluation.report),
        "adaptations": {name: asdict(record) for name, record in evaluation.adaptations.items()},
        "json": json_file,
        "page": page,
        "mlflow_run": run,
    }


@task
def join_adapted(result: dict[str, Any], adapted: dict[str, Any]) -> dict[str, Any]:
    """Put the scores after adaptation beside those before it, in the tables and in the JSON."""
    if result["json"] is not None:
        join_reports(result["json"], adapted["json"], adapted["adaptations"])
    sequences = beside_adapted(result["sequences"], adapted["sequences"])
    for row in sequences:
        skipped = adapted["adaptations"][row["sequence"]]["skipped"]
        row["adaptation"] = f"none: {skipped}" if skipped else "done"
    return {
        **result,
        "sequences": sequences,
        "averages": beside_adapted(result["averages"], adapted["averages"]),
        "adapted_headline": adapted["headline"],
        "adapted_page": adapted["page"],
        "adaptations": adapted["adaptations"],
    }


@task
def publish_scores(result: dict[str, Any]) -> None:
    """Leave the scores as two tables with the flow run."""
    publish_table(result["averages"], key="averages", description="Averages, and how each came about")
    publish_table(result["sequences"], key="sequences", description=f"Per sequence, {result['coverage']}")


def _refuse_for_images(adapt_steps: int, *, candidates: bool) -> None:
    if candidates:
        raise ConfigError("candidates=True: checkpoints are compared on videos; leave it out for still images")
    if adapt_steps:
        raise ConfigError(f"adapt_steps={adapt_steps}: still images have no motion to adapt to; leave it 0")


def _sequence_rows(report: EvaluationReport) -> list[dict[str, Any]]:
    rows = []
    for sequence in report.sequences:
        row: dict[str, Any] = {"sequence": sequence.name, "frames": len(sequence.frames)}
        for choice in report.choices:
            row[f"J {report.title(choice)}"] = sequence.mean("J", report.headline_protocol, choice)
        row[f"F {report.title(LABEL_FREE)}"] = sequence.mean("F", report.headline_protocol, LABEL_FREE)
        rows.append(with_nulls(row))
    return rows


def _average_rows(report: EvaluationReport) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for score in report.scores():
        row = rows.setdefault(
            (score.foreground, score.protocol),
            {
                "foreground": report.title(score.foreground),
                "labels used": "yes" if score.uses_annotations else "no",
                "protocol": score.protocol,
            },
        )
        row[score.measure] = score.value
    return [with_nulls(row) for row in rows.values()]


def _note(now: EvaluationProgress) -> str:
    if now.j is None:
        return f"{now.sequence}: frame {now.num_refined} of {now.num_frames} refined"
    return f"{now.sequence} J {now.j:.3f}"
