"""Scores a model on a benchmark: in this process, or one sequence per Ray actor call.

Labels are read here and nowhere else, and nothing that is decided from them flows back: the label-free scores are
the headline, everything that saw an annotation is marked so (tasks/scores.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from model.dense_crf import crf_preset
from model.metrics import PROTOCOLS
from tasks.adapt import AdaptationOptions, AdaptationRecord, build_adapter
from tasks.benchmarks import Benchmark, BenchmarkSequence
from tasks.clustering import ClusteringBaseline, build_clustering, describe_clustering
from tasks.errors import FootageError
from tasks.evaluate_sequence import PictureRow, SequenceResult, evaluate_sequence
from tasks.evaluation_run import describe_model, log_scores, score_on_ray
from tasks.features import MergingFeatures, build_features
from tasks.model_package import load_model
from tasks.optical_flow import build_estimator
from tasks.refine import build_refiner
from tasks.report import render_report
from tasks.scores import LABEL_FREE, EvaluatedModel, EvaluationReport, SequenceScores
from tasks.segment_clip import ClipOptions, ClipSegmenter
from tasks.settings import Settings
from tasks.storage import Location


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What every worker of an evaluation needs; plain values, so that it travels.

    model_uri: folder of a saved model. optical_flow: name of the estimator for the label-free choice; None chooses
    by the image border alone. merging: what segments are merged by for the ground-truth choice. num_pictured: frames
    per sequence that are drawn for the report. baseline: scored in place of the model, on the keys that merging names.
    clip: None looks at clips as the benchmark asks for. adaptation: of the model to each sequence, before it is scored.
    crf: settings of the dense CRF that refines masks before they are scored (tasks/refine.py); None leaves them as is.
    """

    model_uri: str
    optical_flow: str | None = "dis"
    flow_weights: str | None = None
    flow_weights_sha256: str | None = None
    merging: MergingFeatures = field(default_factory=MergingFeatures)
    clip: ClipOptions | None = None
    device: str = "cpu"
    num_pictured: int = 4
    baseline: ClusteringBaseline | None = None
    adaptation: AdaptationOptions | None = None
    crf: str | None = None

    def __post_init__(self) -> None:
        if self.crf is not None:
            crf_preset(self.crf)  # before minutes of scoring


@dataclass(frozen=True, kw_only=True)
class EvaluationProgress:
    """One more sequence is scored, or one more frame of it is refined.

    j: the sequence's label-free mean; None before it is known. num_refined, num_frames: of its annotated frames.
    """

    sequence: str
    j: float | None
    num_done: int
    num_sequences: int
    num_refined: int = 0
    num_frames: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Numbers and pictures of one evaluation, by sequence: pictures, worst frame first, and what adaptation did."""

    report: EvaluationReport
    pictures: dict[str, tuple[PictureRow, ...]]
    adaptations: dict[str, AdaptationRecord] = field(default_factory=dict)

    def write(self, *, json_file: Location | None = None, html_file: Location | None = None) -> None:
        """Write the report as JSON, as a page, or both."""
        for file, text in ((json_file, self.report.to_json), (html_file, self.to_html)):
            if file is not None:
                file.write_bytes(text().encode())

    def to_html(self) -> str:
        """Return the report as one self-contained page."""
        return render_report(self.report, self.pictures)


class SequenceWorker:
    """Loads model and estimator once, then scores one sequence per call."""

    def __init__(self, job: EvaluationJob) -> None:
        estimator, roles, self._adapter = None, None, None
        if job.optical_flow is not None:
            estimator = build_estimator(job.optical_flow, job.flow_weights, job.flow_weights_sha256, device=job.device)
        if job.baseline is None:
            model = load_model(job.model_uri, device=job.device)
            method, roles, source = model.method, model.roles, build_features(job.merging, device=job.device)
            if job.adaptation is not None:
                self._adapter = build_adapter(model, estimator, job.adaptation, device=job.device)
        else:  # it brings the features that it clusters
            method, source = build_clustering(job.baseline, job.merging, device=job.device), None
        self._segmenter = ClipSegmenter(method, estimator, job.clip, features=source, roles=roles, device=job.device)
        self._num_pictured = job.num_pictured
        self._refiner = build_refiner(job.crf, device=job.device)

    def run(self, sequence: BenchmarkSequence, on_refined: Callable[[int, int], None] | None = None) -> SequenceResult:
        """Score one sequence, by a model of its own where the job asks for adaptation.

        on_refined: called after each frame that was refined, with how many there are so far, and in all.
        """
        segmenter, record = self._segmenter, None
        if self._adapter is not None:
            method, record = self._adapter.adapt(sequence.footage)
            segmenter = segmenter.with_method(method)
        result = evaluate_sequence(
            segmenter,
            sequence,
            num_pictured=self._num_pictured,
            refiner=self._refiner,
            on_frame=on_refined if self._refiner else None,
        )
        return replace(result, adaptation=record)


def evaluate(
    job: EvaluationJob,
    benchmark: Benchmark,
    *,
    settings: Settings | None = None,
    parallel: int | None = None,
    reference: str | None = None,
    on_progress: Callable[[EvaluationProgress], None] | None = None,
) -> Evaluation:
    """Score a model on every sequence of a benchmark.

    parallel: Ray actors to spread the sequences over; None scores in this process, without Ray.
    reference: how the user named the model; None takes its address.
    Raises ModelNotFoundError, FootageError for a sequence that can not be scored, GwmError when a worker dies: an
    average over fewer sequences than asked for would not be the number it claims to be.
    """
    started, job = time.monotonic(), _as_benchmark_asks(job, benchmark)
    model = describe_clustering(job.baseline, job.merging) if job.baseline else describe_model(job.model_uri, reference)
    collected: dict[str, SequenceResult] = {}

    def collect(name: str, result: SequenceResult) -> None:
        _require_headline(result.scores, benchmark.headline_protocol)
        collected[name] = result
        tell(name, result.scores.mean("J", benchmark.headline_protocol, LABEL_FREE))

    def tell(name: str, j: float | None, refined: int = 0, frames: int = 0) -> None:
        if on_progress:
            sequences = {"num_done": len(collected), "num_sequences": len(benchmark.sequences)}
            on_progress(EvaluationProgress(sequence=name, j=j, num_refined=refined, num_frames=frames, **sequences))

    if parallel is None:
        worker = SequenceWorker(job)
        for sequence in benchmark.sequences:
            collect(sequence.name, worker.run(sequence, partial(tell, sequence.name, None)))
    else:
        score_on_ray(
            SequenceWorker, job, benchmark.sequences, settings or Settings(), parallel=parallel, collect=collect
        )
    results = [collected[sequence.name] for sequence in benchmark.sequences]
    return Evaluation(
        report=_report(job, benchmark, model, results, seconds=time.monotonic() - started),
        pictures={result.scores.name: result.rows for result in results},
        adaptations={result.scores.name: result.adaptation for result in results if result.adaptation},
    )


def _report(
    job: EvaluationJob,
    benchmark: Benchmark,
    model: EvaluatedModel,
    results: Sequence[SequenceResult],
    *,
    seconds: float,
) -> EvaluationReport:
    return EvaluationReport(
        benchmark=benchmark.name,
        model=model,
        sequences=tuple(result.scores for result in results),
        optical_flow=job.optical_flow,
        features=job.merging.name,
        headline_protocol=benchmark.headline_protocol,
        coverage=benchmark.coverage,
        notes=benchmark.notes,
        crf=job.crf,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
    )


def log_evaluation(evaluation: Evaluation, settings: Settings) -> str | None:
    """Log the averages, the JSON and the page to the MLflow run that trained the model; return the run's id.

    Returns None for a model that no run is known of: it has none, or was trained with another MLflow.
    """
    report = evaluation.report
    kind = "adapted/" if evaluation.adaptations else ""  # beside the scores of the model as it is, not over them
    metrics = {f"{kind}{key}": value for key, value in report.metrics().items()}
    refined = f"crf-{report.crf}/" if report.crf else ""  # in the names of metrics already
    return log_scores(evaluation, report.model, f"{kind}{refined}{report.benchmark}", metrics, settings)


def _as_benchmark_asks(job: EvaluationJob, benchmark: Benchmark) -> EvaluationJob:
    if job.clip is not None or benchmark.saliency_gaps is None:
        return job
    return replace(job, clip=ClipOptions(gaps=benchmark.saliency_gaps))


def _require_headline(scores: SequenceScores, protocol: str) -> None:
    """Raise FootageError for a sequence too short for the headline: an average without it would be another number."""
    if math.isnan(scores.mean("J", protocol, LABEL_FREE)):
        raise FootageError(
            "too_short",
            f"sequence {scores.name} has {scores.num_frames} frames, {len(scores.frames)} of them annotated, of which "
            f"the headline's average ({PROTOCOLS[protocol].description}) counts none; name the others to score them",
        )
