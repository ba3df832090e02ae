"""The part of flow ``evaluate-model`` for still images: they become scores, a page and rows in MLflow."""

from __future__ import annotations

from typing import Any

from prefect import task

from pipelines.progress import Progress
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import load_settings
from pipelines.scoring import require_writable, scored_at_once, write_scores
from tasks.benchmarks.images import open_image_benchmark
from tasks.devices import own_device
from tasks.evaluate_images import ImageEvaluationJob, evaluate_images, log_image_evaluation
from tasks.features import MergingFeatures
from tasks.foreground_choices import LABEL_FREE
from tasks.image_scores import ImageReport

_ROWS_SHOWN = 20  # of the worst images; all are in the JSON
_LEAST_IMAGES_FOR_RAY = 64  # below, Ray's start costs more than it saves


@task(retries=1, retry_delay_seconds=10, **NOT_FOR_BAD_INPUT)
def score_images(
    folder: str,
    reference: str,
    benchmark: str,
    root: str,
    images: list[str] | None,
    json_file: str | None,
    report: str | None,
    merging: MergingFeatures,
    network_size: str,
    crf: str | None = None,
) -> dict[str, Any]:
    """Score every image, write what was asked for, and log to MLflow; the result has the shape of a video's."""
    settings = load_settings()
    opened = open_image_benchmark(benchmark, root, images)
    require_writable(json_file, report)
    job = ImageEvaluationJob(
        model_uri=folder, device=own_device(settings), merging=merging, network_size=network_size, crf=crf
    )
    count = len(opened.images)
    with Progress(f"evaluate on {benchmark}", key="evaluate") as progress:
        evaluation = evaluate_images(
            job,
            opened,
            settings=settings,
            parallel=scored_at_once(settings, count) if count >= _LEAST_IMAGES_FOR_RAY else None,
            reference=reference,
            on_progress=lambda now: progress(now.num_done, now.num_images, f"J {now.j:.3f} so far"),
        )
    page = write_scores(evaluation, json_file, report)
    run = log_image_evaluation(evaluation, settings)
    return {
        "headline": evaluation.report.headline.value,
        "coverage": evaluation.report.coverage,
        "sequences": _worst_rows(evaluation.report),
        "averages": _average_rows(evaluation.report),
        "json": json_file,
        "page": page,
        "mlflow_run": run,
    }


def _worst_rows(report: ImageReport) -> list[dict[str, Any]]:
    rows = []
    for image in report.worst_first()[:_ROWS_SHOWN]:
        row: dict[str, Any] = {"image, worst first": image.name}
        for choice in report.choices:
            row[f"J {report.title(choice)}"] = image.choices[choice].j
        row[f"accuracy {report.title(LABEL_FREE)}"] = image.choices[LABEL_FREE].accuracy
        rows.append(row)
    return rows


def _average_rows(report: ImageReport) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for score in report.scores():
        row = rows.setdefault(
            score.foreground,
            {
                "foreground": report.title(score.foreground),
                "labels used": "yes" if score.uses_annotations else "no",
            },
        )
        row[score.measure] = score.value
    return list(rows.values())
