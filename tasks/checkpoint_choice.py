"""Which checkpoint of a training becomes its model, decided from numbers that saw no label.

The released code of GWM keeps the checkpoint with the best J on labelled validation data. Here it is the last one, or
one of a few that are kept along the way and compared on frames which training never showed to the network:

    held_out_loss    least training loss
    stability        most agreement of the segments with those of the next frame, moved by the stored optical flow, and
                     with those of the neighbouring checkpoints

What this costs against a choice by labels is measured by ``gwm evaluate --candidates``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.errors import TrainingError

CheckpointRule = Literal["last", "held_out_loss", "stability"]

LAST_STEP = "last step"
IMPORTED = "not known: imported"


class CandidateScores(BaseModel):
    """What was measured of one checkpoint, on the same frame pairs for all of them.

    step: number of finished updates. held_out_loss: training loss, weighted as in training.
    temporal_agreement: Cohen's kappa of each pixel's segment with the one where optical flow leads to, mean of pairs.
    neighbour_agreement: kappa with the segments of the checkpoints before and after, mean of images and of both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    held_out_loss: float
    temporal_agreement: float
    neighbour_agreement: float

    @property
    def stability(self) -> float:
        """Mean of both agreements: 1 for segments that never change, 0 for no more agreement than by chance."""
        return (self.temporal_agreement + self.neighbour_agreement) / 2


_PREFERENCE: dict[CheckpointRule, Callable[[CandidateScores], float]] = {
    "last": lambda scores: scores.step,
    "held_out_loss": lambda scores: -scores.held_out_loss,
    "stability": lambda scores: scores.stability,
}
RULES: tuple[CheckpointRule, ...] = tuple(_PREFERENCE)


def candidate_steps(num_steps: int, num_candidates: int) -> tuple[int, ...]:
    """Return after which steps a checkpoint is kept: evenly spaced, the last step among them; fewer in short runs."""
    return tuple(sorted({max(1, round(num_steps * (i + 1) / num_candidates)) for i in range(num_candidates)}))


def choose_checkpoint(rule: CheckpointRule, candidates: Sequence[CandidateScores]) -> CandidateScores:
    """Return the candidate that a rule prefers, the later one of equals. Raises TrainingError without candidates."""
    if not candidates:
        raise TrainingError("no checkpoint to choose from: expected the scores of one at least")
    return max(candidates, key=lambda scores: (_PREFERENCE[rule](scores), scores.step))


def describe_choice(rule: CheckpointRule, step: int, num_steps: int) -> str:
    """Return what stands beside every score of the model that was chosen."""
    if rule == "last":
        return LAST_STEP
    return f"{rule.replace('_', '-')}: step {step} of {num_steps}, chosen without labels"
