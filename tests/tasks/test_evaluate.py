"""Evaluation against known masks, the DAVIS tool's recorded numbers and hand-made tables; every number labelled."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from model.dis import DisEstimator
from model.foreground import all_groupings
from model.metrics import PROTOCOLS
from model.types import Segmentation
from tasks.benchmarks import BenchmarkSequence, open_benchmark
from tasks.errors import FootageError, GwmError, ModelNotFoundError
from tasks.evaluate import EvaluationJob, EvaluationProgress, evaluate, log_evaluation
from tasks.evaluate_sequence import choose_groupings, evaluate_sequence, worst_frames
from tasks.scores import (
    FOREGROUND_CHOICES,
    GROUND_TRUTH_PER_FRAME,
    LABEL_FREE,
    ORACLE_PER_CLIP,
    ORACLE_PER_FRAME,
    FrameScores,
)
from tasks.segment_clip import ClipSegmenter
from tasks.settings import Settings
from tasks.tracking import find_or_create_run, mlflow_client
from tests.shared import DAVIS, GOLDEN, shared_or_skip
from tests.tasks.moving_square import ColourMethod, square_clip, write_davis
from tests.tasks.tiny_models import saved_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def dog(tmp_path: Path) -> BenchmarkSequence:
    root = write_davis(tmp_path / "davis", {"dog": square_clip(10)})
    return open_benchmark("davis16", str(root)).sequences[0]


def test_known_object_scores_near_one_without_labels(dog):
    result = evaluate_sequence(ClipSegmenter(ColourMethod(), DisEstimator("ultrafast")), dog, num_pictured=3)
    scores = result.scores
    assert (scores.name, scores.num_frames, scores.size) == ("dog", 10, (72, 96))
    assert scores.foreground == (1,)
    assert scores.rule == "motion"
    assert set(scores.choices) == set(FOREGROUND_CHOICES)
    assert min(scores.choices[LABEL_FREE].j) > 0.9
    assert min(scores.choices[LABEL_FREE].f) > 0.9
    assert scores.choices[GROUND_TRUTH_PER_FRAME].j == scores.choices[LABEL_FREE].j  # colours merge the two halves
    titles = ["frame", "optical flow", "segments", "label-free foreground", "annotation"]
    for row in result.rows:
        last = row.frame == 9  # it has no next frame to flow to
        assert list(row.tiles) == [title for title in titles if not (last and title == "optical flow")]
        assert row.j == scores.choices[LABEL_FREE].j[row.frame]


def test_oracles_bound_what_sees_less(dog):
    noisy = ColourMethod((9, 12))  # coarse masks, so that the choices differ from perfect
    choices = evaluate_sequence(ClipSegmenter(noisy, None), dog, num_pictured=0).scores.choices
    per_frame = np.array(choices[ORACLE_PER_FRAME].j)
    for name in (LABEL_FREE, GROUND_TRUTH_PER_FRAME, ORACLE_PER_CLIP):
        assert (per_frame >= np.array(choices[name].j)).all()
    assert np.mean(choices[ORACLE_PER_CLIP].j) >= np.mean(choices[LABEL_FREE].j)


def test_method_without_features_has_no_merged_choice(dog):
    class Featureless(ColourMethod):
        def segment(self, images: Tensor) -> Segmentation:
            return Segmentation(probabilities=super().segment(images).probabilities)

    result = evaluate_sequence(ClipSegmenter(Featureless(), None), dog, num_pictured=1)
    assert GROUND_TRUTH_PER_FRAME not in result.scores.choices
    assert "optical flow" not in result.rows[0].tiles


class Replay:
    """Returns recorded masks, in order, as two certain segments of native size."""

    num_segments = 2

    def __init__(self, masks: list[Path]) -> None:
        self.masks = list(masks)

    def segment(self, images: Tensor) -> Segmentation:
        taken, self.masks = self.masks[: len(images)], self.masks[len(images) :]
        inside = torch.stack([torch.from_numpy(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) > 0).float() for p in taken])
        return Segmentation(probabilities=torch.stack([1 - inside, inside], dim=1))


def test_scores_equal_the_recorded_davis_tool():
    recorded = shared_or_skip(GOLDEN / "davis_metrics")
    name = "scooter-black"
    sequence = open_benchmark("davis16", str(shared_or_skip(DAVIS)), [name]).sequences[0]
    replay = Replay(sorted((recorded / name).glob("*.png")))
    scores = evaluate_sequence(ClipSegmenter(replay, None), sequence, num_pictured=0).scores  # type: ignore[arg-type]
    assert scores.foreground == (1,)
    with (recorded / "per_frame.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["sequence"] == name]
    label_free = scores.choices[LABEL_FREE]
    np.testing.assert_allclose(label_free.j, [float(row["J"]) for row in rows], atol=1e-9)
    np.testing.assert_allclose(label_free.f, [float(row["F"]) for row in rows], atol=1e-6)


def test_sequence_without_annotations_is_refused(tmp_path):
    frames, _ = square_clip(4)
    root = write_davis(tmp_path, {"dog": (frames, [None] * 4)})
    sequence = open_benchmark("davis16", str(root)).sequences[0]
    with pytest.raises(FootageError, match="no annotated frame"):
        evaluate_sequence(ClipSegmenter(ColourMethod(), None), sequence)


@pytest.mark.parametrize("first", [0, 2])
def test_annotations_of_another_size_are_refused(tmp_path, first):
    frames, masks = square_clip(4)
    root = write_davis(tmp_path, {"dog": (frames, [None] * first + [mask[:-2] for mask in masks[first:]])})
    sequence = open_benchmark("davis16", str(root)).sequences[0]
    with pytest.raises(FootageError, match="expected equal sizes"):
        evaluate_sequence(ClipSegmenter(ColourMethod(), None), sequence)


def test_only_annotated_frames_are_scored(tmp_path):
    frames, masks = square_clip(8)
    sparse = [mask if index % 2 else None for index, mask in enumerate(masks)]
    sequence = open_benchmark("davis16", str(write_davis(tmp_path, {"dog": (frames, sparse)}))).sequences[0]
    scores = evaluate_sequence(ClipSegmenter(ColourMethod(), None), sequence).scores
    assert scores.frames == (1, 3, 5, 7)
    assert len(scores.choices[LABEL_FREE].j) == 4


def test_choices_on_a_table_made_by_hand():
    groupings = all_groupings(3)  # (0,) (1,) (2,) (0,1) (0,2) (1,2)
    assert len(groupings) == 6
    table = np.array([[0.1, 0.6, 0.2, 0.0, 0.0, 0.9], [0.1, 0.7, 0.8, 0.0, 0.0, 0.2], [0.3, 0.5, 0.4, 0.0, 0.0, 0.6]])
    merged = np.array([[0, 5], [0, 5], [1, 4]])
    chosen = {name: value.tolist() for name, value in choose_groupings(table, 2, merged).items()}
    assert chosen == {
        LABEL_FREE: [2, 2, 2],
        GROUND_TRUTH_PER_FRAME: [5, 5, 1],
        ORACLE_PER_CLIP: [1, 1, 1],
        ORACLE_PER_FRAME: [5, 2, 5],
    }


def test_worst_frames_are_apart_and_end_with_the_best():
    scores = [0.9, 0.1, 0.11, 0.12, 0.8, 0.95, 0.7, 0.2, 0.6, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    assert worst_frames(scores, 4) == [1, 3, 7, 5]
    assert worst_frames([0.5], 4) == [0]


def test_frames_without_any_object_count_as_each_protocol_has_it():
    scores = FrameScores(j=(0.5, 1.0), f=(0.4, 1.0), segments=((0,), (0,)), both_empty=(False, True))
    assert scores.values("J", "davis") == [0.5, 1.0]
    assert scores.values("J", "gwm") == [0.5, 0.0]
    assert scores.values("J", "rcf")[0] == 0.5
    assert math.isnan(scores.values("J", "rcf")[1])
    assert scores.values("F", "gwm") == [0.4, 1.0]


def test_every_number_in_the_json_is_labelled(benchmark_of_two, model_uri):
    seen: list[EvaluationProgress] = []
    evaluation = evaluate(EvaluationJob(model_uri=model_uri), benchmark_of_two, on_progress=seen.append)
    assert [(now.sequence, now.num_done, now.num_sequences) for now in seen] == [("dog", 1, 2), ("libby", 2, 2)]
    document = json.loads(evaluation.report.to_json())
    assert len(document["scores"]) == 2 * len(PROTOCOLS) * len(FOREGROUND_CHOICES)
    for score in [document["headline"], *document["scores"]]:
        assert score["foreground"] in FOREGROUND_CHOICES
        assert score["uses_annotations"] is (score["foreground"] != LABEL_FREE)
        assert score["checkpoint"] == "last step"
        assert score["protocol"] in PROTOCOLS
        assert 0 <= score["value"] <= 1
    assert document["headline"]["foreground"] == LABEL_FREE
    for sequence in document["sequences"]:
        for score in sequence["scores"]:
            assert score["foreground"] in FOREGROUND_CHOICES
            assert score["checkpoint"] == "last step"
            assert set(score["mean_by_protocol"]) == set(PROTOCOLS)
            assert len(score["per_frame"]) == len(sequence["frames"])


def test_averages_follow_from_the_frames(benchmark_of_two, model_uri):
    report = evaluate(EvaluationJob(model_uri=model_uri, num_pictured=0), benchmark_of_two).report
    frames = [np.array(sequence.choices[ORACLE_PER_FRAME].j) for sequence in report.sequences]
    expected = {
        "davis": np.mean([j[1:-1].mean() for j in frames]),
        "gwm": np.mean([j[2:-1].mean() for j in frames]),
        "rcf": np.concatenate(frames).mean(),
    }
    for protocol, value in expected.items():
        assert report.score("J", protocol, ORACLE_PER_FRAME).value == pytest.approx(value)
    metrics = report.metrics()
    assert metrics["davis16/J/gwm/label-free"] == report.headline.value
    assert metrics["davis16/F/rcf/oracle-per-clip"] == report.score("F", "rcf", ORACLE_PER_CLIP).value
    assert metrics["davis16/J/gwm/label-free/dog"] == report.sequences[0].mean("J", "gwm", LABEL_FREE)


@pytest.mark.slow
def test_ray_actors_find_the_same_as_one_process(benchmark_of_two, model_uri, ray_cluster):
    job = EvaluationJob(model_uri=model_uri, num_pictured=1)
    alone = evaluate(job, benchmark_of_two).report
    spread = evaluate(job, benchmark_of_two, settings=Settings(device="cpu"), parallel=2)
    assert spread.report.sequences == alone.sequences
    assert set(spread.pictures) == {"dog", "libby"}


@pytest.mark.slow
def test_a_sequence_that_fails_on_ray_fails_the_evaluation(tmp_path, model_uri, ray_cluster):
    frames, _ = square_clip(4)
    root = write_davis(tmp_path / "broken", {"dog": (frames, [None] * 4), "libby": square_clip(5)})
    with pytest.raises(GwmError, match="no annotated frame"):
        evaluate(EvaluationJob(model_uri=model_uri), open_benchmark("davis16", str(root)), parallel=2)


def test_missing_model_is_told(benchmark_of_two, tmp_path):
    with pytest.raises(ModelNotFoundError, match="no model at"):
        evaluate(EvaluationJob(model_uri=str(tmp_path)), benchmark_of_two)


def test_scores_and_page_reach_the_run_that_trained_the_model(benchmark_of_two, tmp_path):
    settings = Settings()
    run = find_or_create_run(settings, "training-1", tags={}, params={})
    model = saved_model(tmp_path / "model", run_id=run.run_id)
    evaluation = evaluate(EvaluationJob(model_uri=model, num_pictured=1), benchmark_of_two)
    assert log_evaluation(evaluation, settings) == run.run_id
    client = mlflow_client(settings)
    logged = client.get_metric_history(run.run_id, "davis16/J/gwm/label-free")
    assert [(point.value, point.step) for point in logged] == [(evaluation.report.headline.value, 30)]
    names = {file.path for file in client.list_artifacts(run.run_id, "evaluation/davis16")}
    assert names == {"evaluation/davis16/scores.json", "evaluation/davis16/report.html"}


def test_a_model_without_a_run_is_not_logged(benchmark_of_two, model_uri):
    evaluation = evaluate(EvaluationJob(model_uri=model_uri, num_pictured=0), benchmark_of_two)
    assert log_evaluation(evaluation, Settings()) is None
    elsewhere = replace(evaluation.report, model=replace(evaluation.report.model, mlflow_run_id="0" * 32))
    assert log_evaluation(replace(evaluation, report=elsewhere), Settings()) is None
