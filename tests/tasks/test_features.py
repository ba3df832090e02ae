"""Merging by features of choice, through a whole evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.networks.dino_vit import DinoKeys
from model.weights import save_state_dict
from tasks.errors import GwmError
from tasks.evaluate import EvaluationJob, evaluate
from tasks.features import MergingFeatures
from tasks.scores import GROUND_TRUTH_PER_FRAME


@pytest.mark.parametrize("name", ["colour", "motion", "dino"])
def test_segments_merge_by_any_features(name, benchmark_of_two, model_uri, tmp_path):
    weights = str(tmp_path / "dino.safetensors") if name == "dino" else None
    if weights:
        save_state_dict(DinoKeys(channels=64, num_blocks=1, num_heads=1).vit.state_dict(), Path(weights))
    merging = MergingFeatures(name=name, weights=weights)
    report = evaluate(EvaluationJob(model_uri=model_uri, num_pictured=0, merging=merging), benchmark_of_two).report
    assert json.loads(report.to_json())["merged_by_features"] == name
    assert GROUND_TRUTH_PER_FRAME in report.choices


def test_features_that_can_not_be_made_are_told(benchmark_of_two, model_uri):
    for merging, message in (
        (MergingFeatures(name="clip"), "expected one of decoder, colour, motion, dino"),
        (MergingFeatures(name="dino"), "needs its weights"),
        (MergingFeatures(name="dino", weights="missing.pth"), "no weights 'missing.pth' for dino-vit-s8.*dino-vit-b8"),
        (MergingFeatures(name="dino", weights="moby-swin-t"), "moby-swin-t are weights of swin-tiny for dino-vit-s8"),
    ):
        with pytest.raises(GwmError, match=message):
            evaluate(EvaluationJob(model_uri=model_uri, merging=merging), benchmark_of_two)
