"""Rules side by side: each gets J of the grouping that it would have chosen, whichever decided."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.clip_evidence import ClipEvidence, all_groupings
from model.dis import DisEstimator
from model.metrics import ScoredFrames
from tasks.benchmarks import open_benchmark
from tasks.evaluate_sequence import evaluate_sequence
from tasks.rule_scores import RuleScores, average_rules, score_rules
from tasks.scores import LABEL_FREE
from tasks.segment_clip import ClipSegmenter
from tests.tasks.moving_square import ColourMethod, square_clip, write_davis


def three_columns(saliency: torch.Tensor | None) -> ClipEvidence:
    """Three upright stripes, a third of the image each: 0 left, 1 in the middle, 2 right."""
    probabilities = torch.zeros(2, 3, 12, 18)
    for segment in range(3):
        probabilities[:, segment, :, 6 * segment : 6 * segment + 6] = 1
    evidence = ClipEvidence(3)
    evidence.update(probabilities, saliency)
    return evidence


def test_each_rule_is_scored_by_what_it_would_have_chosen() -> None:
    saliency = torch.zeros(2, 12, 18)
    saliency[:, :, :6] = 1  # what moves is the left stripe, which the border rule would never take
    groupings = all_groupings(3)
    table = np.arange(2 * len(groupings), dtype=float).reshape(2, -1) / 100
    rules = score_rules(three_columns(saliency), table)
    assert set(rules) == {"motion", "border"}  # no images came, so nothing is known of appearance
    assert rules["motion"].segments == (0,)
    assert rules["border"].segments == (1,)
    assert rules["motion"].j == tuple(table[:, groupings.index((0,))])
    assert rules["border"].j == tuple(table[:, groupings.index((1,))])


def test_a_rule_without_evidence_has_no_line_of_its_own() -> None:
    table = np.zeros((2, len(all_groupings(3))))
    assert set(score_rules(three_columns(None), table)) == {"border"}


def test_averages_leave_out_a_rule_that_a_sequence_lacks() -> None:
    scores = {name: RuleScores(segments=(0,), j=(9.0, 9.0, value, 9.0)) for name, value in (("a", 0.2), ("b", 0.4))}
    rules = {
        "dog": {"motion": scores["a"], "border": scores["a"]},
        "cows": {"border": scores["b"]},
    }
    frames = {name: ScoredFrames(numbers=(0, 1, 2, 3), num_frames=4) for name in rules}
    # by GWM's protocol the first two frames and the last one do not count
    assert average_rules(rules, frames, "gwm") == {"border": pytest.approx(0.3)}
    assert average_rules({}, {}, "gwm") == {}


def test_the_rule_that_decided_scores_as_the_headline(tmp_path) -> None:
    root = write_davis(tmp_path / "davis", {"dog": square_clip(6)})
    dog = open_benchmark("davis16", str(root)).sequences[0]
    scores = evaluate_sequence(ClipSegmenter(ColourMethod(), DisEstimator("ultrafast")), dog, num_pictured=0).scores
    assert set(scores.rules) == {"motion", "appearance", "border"}
    assert scores.rules[scores.rule].j == scores.choices[LABEL_FREE].j
    assert scores.rules[scores.rule].segments == scores.foreground
