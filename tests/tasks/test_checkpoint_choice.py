"""Choosing a checkpoint from its numbers, and what the choice costs: pure functions."""

from __future__ import annotations

import pytest

from tasks.candidate_costs import candidate_rows, cost_rows
from tasks.checkpoint_choice import CandidateScores, candidate_steps, choose_checkpoint, describe_choice
from tasks.config import resolve_experiment
from tasks.errors import ConfigError, TrainingError


def scores(step: int, loss: float, temporal: float = 0.5, neighbour: float = 0.5) -> CandidateScores:
    return CandidateScores(step=step, held_out_loss=loss, temporal_agreement=temporal, neighbour_agreement=neighbour)


CANDIDATES = (scores(100, 0.3, 0.9, 0.2), scores(200, 0.1, 0.6, 0.8), scores(300, 0.2, 0.7, 0.6))


@pytest.mark.parametrize(("rule", "step"), [("last", 300), ("held_out_loss", 200), ("stability", 200)])
def test_each_rule_takes_what_it_says(rule: str, step: int) -> None:
    assert choose_checkpoint(rule, CANDIDATES).step == step  # type: ignore[arg-type]
    assert choose_checkpoint(rule, CANDIDATES[::-1]).step == step  # type: ignore[arg-type]


def test_the_later_of_equals_is_taken_and_none_is_an_error() -> None:
    equal = (scores(10, 0.2), scores(30, 0.2), scores(20, 0.2))
    assert choose_checkpoint("held_out_loss", equal).step == 30
    assert choose_checkpoint("stability", equal).step == 30
    with pytest.raises(TrainingError, match="no checkpoint to choose from"):
        choose_checkpoint("last", ())


@pytest.mark.parametrize(
    ("num_steps", "count", "expected"),
    [(600, 6, (100, 200, 300, 400, 500, 600)), (10, 3, (3, 7, 10)), (3, 6, (1, 2, 3)), (1, 2, (1,))],
)
def test_candidates_are_spread_evenly_and_end_with_the_last(
    num_steps: int, count: int, expected: tuple[int, ...]
) -> None:
    assert candidate_steps(num_steps, count) == expected


def test_the_choice_is_told_in_words() -> None:
    assert describe_choice("last", 300, 300) == "last step"
    assert describe_choice("held_out_loss", 200, 300) == "held-out-loss: step 200 of 300, chosen without labels"


def test_frames_are_held_out_where_the_choice_needs_them() -> None:
    plain = resolve_experiment({"name": "x"})
    assert (plain.held_out_frames_percent, plain.candidate_steps) == (0, ())
    chosen = resolve_experiment({"name": "x"}, ["recording.checkpoint_choice=stability"])
    assert chosen.held_out_frames_percent == 10
    assert len(chosen.candidate_steps) == chosen.recording.num_candidates
    assert resolve_experiment({"name": "x"}, ["data.held_out_frames_percent=20"]).held_out_frames_percent == 20
    with pytest.raises(ConfigError, match=r"expected data\.held_out_frames_percent above 0"):
        resolve_experiment({"name": "x"}, ["recording.checkpoint_choice=stability", "data.held_out_frames_percent=0"])
    with pytest.raises(ConfigError, match=r"recording.checkpoint_choice: Input should be 'last', 'held_out_loss'"):
        resolve_experiment({"name": "x"}, ["recording.checkpoint_choice=best"])


def test_the_cost_is_against_the_best_by_labels() -> None:
    j = {100: 0.7, 200: 0.55, 300: 0.6}
    rows = {row["checkpoint"]: row for row in cost_rows(CANDIDATES, j)}
    assert {name: (row["step"], row["labels used"]) for name, row in rows.items()} == {
        "last": (300, "no"),
        "held-out-loss": (200, "no"),
        "stability": (200, "no"),
        "best by labels": (100, "yes"),
    }
    assert rows["stability"]["below the best"] == pytest.approx(0.15)
    assert rows["best by labels"]["below the best"] == 0
    assert [row["chosen by"] for row in candidate_rows(CANDIDATES, j)] == [
        "best by labels",
        "held-out-loss, stability",
        "last",
    ]
