"""How every label-free rule would have done, beside the one that decided: J of the grouping that each rule takes.

Rules decide without annotations; scoring them side by side needs annotations, so these numbers serve to compare rules
and decide nothing. They are of the masks as the network made them, before any refinement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from model.clip_evidence import ClipEvidence, all_groupings
from model.foreground import ForegroundRule, choose_grouping
from model.metrics import ScoredFrames, average
from model.segment_roles import SegmentRoles

RULES: tuple[ForegroundRule, ...] = get_args(ForegroundRule)


@dataclass(frozen=True, kw_only=True)
class RuleScores:
    """What one rule chose in a clip, and J of that choice in every annotated frame."""

    segments: tuple[int, ...]
    j: tuple[float, ...]


def score_rules(
    evidence: ClipEvidence, table: NDArray[np.float64], roles: SegmentRoles | None = None
) -> dict[str, RuleScores]:
    """Score the choice of every rule that the evidence suffices for.

    table: J [t, g] of every grouping in every annotated frame. roles: what the segments are for, if known.
    """
    chosen = {rule: choose_grouping(evidence, rule, roles) for rule in RULES}
    groupings = all_groupings(evidence.num_segments)
    return {
        rule: RuleScores(
            segments=grouping.segments, j=tuple(table[:, groupings.index(grouping.segments)].astype(float).tolist())
        )
        for rule, grouping in chosen.items()
        if grouping.rule == rule  # else it fell back to a rule that has a line of its own
    }


def average_rules(
    rules: Mapping[str, Mapping[str, RuleScores]], frames: Mapping[str, ScoredFrames], protocol: str
) -> dict[str, float]:
    """Average J by rule over sequences, by a protocol's selection of frames; a rule that a sequence lacks is left out.

    rules: by sequence, then by rule. frames: which frames of each sequence have a score.
    """
    names = [rule for rule in RULES if rules and all(rule in of_sequence for of_sequence in rules.values())]
    return {
        rule: average({name: list(of_sequence[rule].j) for name, of_sequence in rules.items()}, protocol, frames)
        for rule in names
    }
