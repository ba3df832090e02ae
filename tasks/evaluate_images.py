"""Scores a model on a benchmark of still images: in this process, or one image per Ray actor call.

As for videos (``tasks/evaluate.py``), labels are read to score and nothing that is decided from them flows back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from model.dense_crf import crf_preset
from model.features import DinoFeatures
from tasks.benchmarks.images import BenchmarkImage, ImageBenchmark
from tasks.errors import DatasetError
from tasks.evaluate_image import (
    AUTOMATIC,
    OF_MODEL,
    ImageResult,
    ImageSegmenter,
    evaluate_image,
    network_size_for,
    parse_network_size,
)
from tasks.evaluation_run import describe_model, log_scores, score_on_ray
from tasks.features import MergingFeatures, build_features
from tasks.foreground_choices import LABEL_FREE
from tasks.image_report import render_image_report
from tasks.image_scores import ImageReport, ImageRow
from tasks.model_package import load_model, read_description
from tasks.refine import build_refiner
from tasks.settings import Settings
from tasks.storage import Location, location

_BEST_PICTURED = 3
"""Images that the page shows at most for what goes right, after the worst."""


@dataclass(frozen=True, kw_only=True)
class ImageEvaluationJob:
    """What every worker of an evaluation on images needs; plain values, so that it travels.

    model_uri: folder of a saved model. merging: what segments are merged by for GWM's border rule and the ground-truth
    choice. network_size: auto, native, model or rows x columns (tasks/evaluate_image.py). num_pictured: images drawn
    on the page. crf: settings of the dense CRF that refines masks before they are scored; None leaves them as they are.
    """

    model_uri: str
    merging: MergingFeatures = field(default_factory=MergingFeatures)
    network_size: str = AUTOMATIC
    device: str = "cpu"
    num_pictured: int = 48
    crf: str | None = None

    def __post_init__(self) -> None:
        network_size_for(self.network_size, "")
        if self.crf is not None:
            crf_preset(self.crf)  # before minutes of scoring


@dataclass(frozen=True, kw_only=True)
class ImageProgress:
    """One more image is scored; ``j``: the label-free mean so far."""

    image: str
    j: float
    num_done: int
    num_images: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageEvaluation:
    """Numbers and pictures of one evaluation on images; pictures by image: the worst, and a few of the best."""

    report: ImageReport
    pictures: dict[str, dict[str, bytes]]

    def write(self, *, json_file: Location | None = None, html_file: Location | None = None) -> None:
        """Write the report as JSON, as a page, or both."""
        for file, text in ((json_file, self.report.to_json), (html_file, self.to_html)):
            if file is not None:
                file.write_bytes(text().encode())

    def to_html(self) -> str:
        """Return the report as one self-contained page."""
        return render_image_report(self.report, self.pictures)


class ImageWorker:
    """Loads the model once, then scores one image per call."""

    def __init__(self, job: ImageEvaluationJob) -> None:
        model = load_model(job.model_uri, device=job.device)
        source = build_features(job.merging, device=job.device)
        size = parse_network_size(job.network_size)
        if isinstance(source, DinoFeatures) and size != OF_MODEL:
            source = DinoFeatures(source.keys, image_size=None if isinstance(size, str) else size)
        self._is_pictured = job.num_pictured > 0
        self._segmenter = ImageSegmenter(
            model.method, features=source, roles=model.roles, network_size=job.network_size, device=job.device
        )
        self._refiner = build_refiner(job.crf, device=job.device)

    def run(self, image: BenchmarkImage) -> ImageResult:
        """Score one image."""
        return evaluate_image(self._segmenter, image, pictured=self._is_pictured, refiner=self._refiner)


class _Collected:
    """Results so far: numbers of all images, sums of their curves, pictures of the worst and the best only."""

    def __init__(self, num_pictured: int) -> None:
        self.rows: dict[str, ImageRow] = {}
        self.curves: dict[str, NDArray[np.float64]] = {}
        self.j = 0.0
        self._num_best = min(_BEST_PICTURED, num_pictured // 8)  # none of a few
        self._num_worst = num_pictured - self._num_best
        self._worst: list[ImageResult] = []
        self._best: list[ImageResult] = []

    def add(self, result: ImageResult) -> None:
        """Add one image."""
        self.rows[result.row.name] = result.row
        for choice, curve in result.f_curves.items():
            self.curves[choice] = self.curves[choice] + curve if choice in self.curves else curve
        self.j += result.row.choices[LABEL_FREE].j
        # by name as well, so that the order in which results arrive makes no difference
        self._worst = sorted([*self._worst, result], key=lambda kept: kept.row.badness)[: self._num_worst]
        self._best = sorted([*self._best, result], key=lambda kept: kept.row.badness)[::-1][: self._num_best]

    def pictures(self) -> dict[str, dict[str, bytes]]:
        """Return the pictures that were kept, by image."""
        return {kept.row.name: kept.tiles for kept in (*self._worst, *self._best)}


def evaluate_images(
    job: ImageEvaluationJob,
    benchmark: ImageBenchmark,
    *,
    settings: Settings | None = None,
    parallel: int | None = None,
    reference: str | None = None,
    on_progress: Callable[[ImageProgress], None] | None = None,
) -> ImageEvaluation:
    """Score a model on every image of a benchmark.

    parallel: Ray actors to spread the images over; None scores in this process, without Ray.
    reference: how the user named the model; None takes its address.
    Raises ModelNotFoundError, FootageError for an image that can not be scored, GwmError when a worker dies.
    """
    started = time.monotonic()
    if not benchmark.images:
        raise DatasetError(f"benchmark {benchmark.name} at {benchmark.root} has no images to score")
    model = describe_model(job.model_uri, reference)
    network = read_description(location(job.model_uri))["experiment"]["method"].get("network", "")
    job = replace(job, network_size=network_size_for(job.network_size, network))
    collected = _Collected(job.num_pictured)

    def collect(name: str, result: ImageResult) -> None:
        collected.add(result)
        if on_progress:
            done = len(collected.rows)
            now = ImageProgress(image=name, j=collected.j / done, num_done=done, num_images=len(benchmark.images))
            on_progress(now)

    if parallel is None:
        worker = ImageWorker(job)
        for image in benchmark.images:
            collect(image.name, worker.run(image))
    else:
        score_on_ray(ImageWorker, job, benchmark.images, settings or Settings(), parallel=parallel, collect=collect)
    report = ImageReport(
        benchmark=benchmark.name,
        model=model,
        images=tuple(collected.rows[image.name] for image in benchmark.images),
        f_curves={choice: total / len(collected.rows) for choice, total in collected.curves.items()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - started,
        features=job.merging.name,
        network_size=job.network_size,
        coverage=benchmark.coverage,
        crf=job.crf,
    )
    return ImageEvaluation(report=report, pictures=collected.pictures())


def log_image_evaluation(evaluation: ImageEvaluation, settings: Settings) -> str | None:
    """Log the averages, the JSON and the page to the MLflow run that trained the model; return the run's id.

    Returns None for a model that no run is known of.
    """
    report = evaluation.report
    refined = f"crf-{report.crf}/" if report.crf else ""  # in the names of metrics already
    return log_scores(evaluation, report.model, f"{refined}{report.benchmark}", report.metrics(), settings)
