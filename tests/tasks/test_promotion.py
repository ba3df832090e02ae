"""The promotion decision: every branch, without anything running."""

from __future__ import annotations

import pytest

from tasks.errors import InputError
from tasks.promotion import Metrics, choose_promotion


def scored(j: float, benchmark: str = "davis16") -> Metrics:
    return Metrics(headline=j, benchmark=benchmark)


def test_a_score_that_is_not_a_number_is_never_promoted():
    assert not choose_promotion(None, scored(float("nan"))).promote
    assert not choose_promotion(scored(0.5), scored(float("nan"))).promote


def test_first_model_is_promoted():
    assert choose_promotion(None, Metrics()).promote


@pytest.mark.parametrize(
    ("champion", "challenger", "promote"), [(0.6, 0.61, True), (0.6, 0.6, False), (0.6, 0.59, False)]
)
def test_headline_must_be_better(champion, challenger, promote):
    decision = choose_promotion(scored(champion), scored(challenger))
    assert decision.promote is promote
    assert f"{challenger:.4f}" in decision.reason
    assert f"{champion:.4f}" in decision.reason


@pytest.mark.parametrize(
    ("champion", "challenger", "promote"), [(2.0, 1.5, True), (2.0, 2.0, False), (2.0, 2.5, False)]
)
def test_without_annotations_the_held_out_loss_must_fall(champion, challenger, promote):
    decision = choose_promotion(Metrics(held_out_loss=champion), Metrics(held_out_loss=challenger))
    assert decision.promote is promote
    assert "loss" in decision.reason


def test_headline_outweighs_the_loss():
    champion = Metrics(headline=0.7, benchmark="davis16", held_out_loss=1.0)
    assert choose_promotion(champion, Metrics(headline=0.8, benchmark="davis16", held_out_loss=9.0)).promote


def test_headlines_on_different_benchmarks_are_not_compared():
    champion = Metrics(headline=0.5, benchmark="rendered", held_out_loss=1.0)
    challenger = Metrics(headline=0.9, benchmark="davis16", held_out_loss=2.0)
    assert not choose_promotion(champion, challenger).promote
    assert "share no number" in choose_promotion(scored(0.5, "rendered"), scored(0.9)).reason


def test_a_loss_that_is_not_finite_is_never_promoted():
    assert not choose_promotion(None, Metrics(held_out_loss=float("nan"))).promote
    assert not choose_promotion(Metrics(held_out_loss=1.0), Metrics(held_out_loss=float("-inf"))).promote


@pytest.mark.parametrize("value", [-0.1, 62.5])
def test_headline_in_percent_is_refused(value):
    with pytest.raises(InputError, match="between 0 and 1"):
        Metrics(headline=value)
