"""Scores before and after adaptation, from a sequence to the tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.adapt import AdaptationOptions
from tasks.adapted_scores import beside_adapted, join_reports
from tasks.benchmarks import open_benchmark
from tasks.errors import InputError
from tasks.evaluate import EvaluationJob, SequenceWorker, evaluate
from tests.tasks.moving_square import square_clip, write_davis
from tests.tasks.tiny_models import saved_model


def test_every_score_gets_its_counterpart() -> None:
    before = [{"sequence": "cow", "frames": 4, "J": 0.5, "F": None}]
    after = [{"sequence": "cow", "frames": 4, "J": 0.75, "F": 0.5}]
    assert beside_adapted(before, after) == [
        {"sequence": "cow", "frames": 4, "J": 0.5, "J, adapted": 0.75, "F": None, "F, adapted": 0.5}
    ]


def test_two_reports_become_one(tmp_path: Path) -> None:
    first, second = tmp_path / "scores.json", tmp_path / "scores.json.adapted"
    first.write_text(json.dumps({"headline": 1}))
    second.write_text(json.dumps({"headline": 2}))
    join_reports(str(first), str(second), {"cow": {"skipped": None}})
    joined = json.loads(first.read_text())
    assert joined == {"headline": 1, "adapted": {"headline": 2, "adaptation": {"cow": {"skipped": None}}}}
    assert not second.exists()


def test_sequences_are_scored_by_models_of_their_own(tmp_path: Path) -> None:
    still = [np.full((72, 96, 3), 7, np.uint8)] * 4
    clips = {"moving": square_clip(5), "black": (still, square_clip(4)[1])}
    benchmark = open_benchmark("davis16", str(write_davis(tmp_path / "davis", clips)))
    model = saved_model(tmp_path / "model")
    options = AdaptationOptions(num_steps=3, max_pairs=6, max_side=96)
    job = EvaluationJob(model_uri=model, num_pictured=0, adaptation=options)
    adapted = evaluate(job, benchmark)
    assert adapted.adaptations["moving"].skipped is None
    assert "flat colour" in str(adapted.adaptations["black"].skipped)

    # each sequence from the same start: alone it comes out as among others
    worker = SequenceWorker(job)
    alone = {sequence.name: worker.run(sequence).scores for sequence in reversed(benchmark.sequences)}
    assert alone == {scores.name: scores for scores in adapted.report.sequences}
    plain = evaluate(EvaluationJob(model_uri=model, num_pictured=0), benchmark)
    assert plain.adaptations == {}
    assert {scores.name: scores for scores in plain.report.sequences}["black"] == alone["black"]


def test_adaptation_needs_optical_flow(tmp_path: Path) -> None:
    job = EvaluationJob(
        model_uri=saved_model(tmp_path / "model"), optical_flow=None, adaptation=AdaptationOptions(num_steps=1)
    )
    with pytest.raises(InputError, match="adaptation needs optical flow"):
        SequenceWorker(job)
