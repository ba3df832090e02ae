"""What a report says of the benchmark it was made on: its average, how much of it was there, what has no number."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.benchmarks import open_benchmark
from tasks.errors import FootageError
from tasks.evaluate import EvaluationJob, SequenceWorker, evaluate
from tasks.report import render_report
from tasks.scores import LABEL_FREE, FrameScores
from tasks.segment_clip import ClipOptions
from tests.tasks.moving_square import square_clip, write_davis

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_sequence_of_empty_frames_is_null_under_rcf_and_counts_elsewhere(benchmark_of_two, model_uri):
    report = evaluate(EvaluationJob(model_uri=model_uri, num_pictured=0), benchmark_of_two).report
    dog, libby = report.sequences
    num_frames = len(dog.frames)
    empty = FrameScores(
        j=(1.0,) * num_frames, f=(1.0,) * num_frames, segments=((0,),) * num_frames, both_empty=(True,) * num_frames
    )
    dog = replace(dog, choices={**dog.choices, LABEL_FREE: empty})
    document = json.loads(replace(report, sequences=(dog, libby)).to_json())
    (label_free,) = [
        score
        for score in document["sequences"][0]["scores"]
        if (score["foreground"], score["measure"]) == (LABEL_FREE, "J")
    ]
    assert label_free["mean_by_protocol"] == {"gwm": 0.0, "gwm-frames": 0.0, "rcf": None, "davis": 1.0}
    of_both = [score["value"] for score in document["scores"] if score["protocol"] == "rcf"]
    assert None not in of_both  # the other sequence has frames
    alone = replace(report, sequences=(dog,))
    assert math.isnan(alone.score("J", "rcf", LABEL_FREE).value)
    assert "davis16/J/rcf/label-free" not in alone.metrics()
    json.loads(alone.to_json())
    render_report(alone, {})


def test_the_report_says_how_much_of_the_benchmark_was_scored(benchmark_of_two, model_uri):
    evaluation = evaluate(EvaluationJob(model_uri=model_uri, num_pictured=0), benchmark_of_two)
    document = json.loads(evaluation.report.to_json())
    assert document["headline"]["coverage"] == "2 of 20 sequences"
    assert document["notes"][0] == "dog has 6 frames where 60 are published"
    assert "2 of 20 sequences" in evaluation.to_html()


def test_benchmarks_set_headline_and_gaps(benchmark_of_two, model_uri, monkeypatch):
    seen: list[ClipOptions | None] = []

    class Spy(SequenceWorker):
        def __init__(self, job: EvaluationJob) -> None:
            seen.append(job.clip)
            super().__init__(job)

    monkeypatch.setattr("tasks.evaluate.SequenceWorker", Spy)
    as_fbms = replace(benchmark_of_two, saliency_gaps=(3, -3), headline_protocol="gwm-frames")
    job = EvaluationJob(model_uri=model_uri, num_pictured=0)
    report = evaluate(job, as_fbms).report
    evaluate(replace(job, clip=ClipOptions(gaps=(1,))), as_fbms)
    evaluate(job, benchmark_of_two)
    assert seen == [ClipOptions(gaps=(3, -3)), ClipOptions(gaps=(1,)), None]
    assert report.headline.protocol == "gwm-frames"
    frames = [sequence.choices[LABEL_FREE].values("J", "gwm")[:-1] for sequence in report.sequences]
    assert report.headline.value == pytest.approx(np.mean([j for of_one in frames for j in of_one]))


def test_a_sequence_too_short_for_the_headline_is_refused(tmp_path, model_uri):
    root = write_davis(tmp_path / "short", {"dog": square_clip(6), "libby": square_clip(3)})
    with pytest.raises(FootageError, match="libby has 3 frames, 3 of them annotated"):
        evaluate(EvaluationJob(model_uri=model_uri, num_pictured=0), open_benchmark("davis16", str(root)))
