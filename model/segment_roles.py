"""What each segment of a model is for, learned from motion and without a label.

One network numbers its segments alike in all footage: on ten DAVIS sequences the same one or two of K were the object
in nearly every clip. How often motion took each segment as foreground in the footage that a model was trained on is
therefore a prior for footage where motion says little, and for still images, where it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from model.clip_evidence import membership
from model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SegmentRoles:
    """In how many clips each segment was part of the foreground.

    num_clips: clips that were looked at. num_foreground: of these, by segment.
    """

    num_clips: int
    num_foreground: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(not 0 <= count <= self.num_clips for count in self.num_foreground):
            raise InputError(
                f"SegmentRoles(num_clips={self.num_clips}, num_foreground={self.num_foreground}): expected counts "
                "between 0 and the number of clips"
            )

    @property
    def num_segments(self) -> int:
        """Segments of the model that these are the roles of."""
        return len(self.num_foreground)

    def log_prior(self) -> Float[Tensor, " g"]:
        """Return the log-probability of each grouping, the segments taken as independent.

        A segment's probability is by Laplace's rule of succession, (count + 1) / (clips + 2): never 0, and 1/2 where
        nothing is known, so that no clips prefer no grouping.
        """
        counts = torch.tensor(self.num_foreground, dtype=torch.float64)
        inside = (counts + 1) / (self.num_clips + 2)
        table = membership(self.num_segments).double()
        return table @ inside.log() + (1 - table) @ (1 - inside).log()


def count_roles(num_segments: int, foregrounds: Iterable[tuple[int, ...]]) -> SegmentRoles:
    """Count how often each segment is in the foregrounds of clips."""
    chosen = list(foregrounds)
    counts = tuple(sum(segment in group for group in chosen) for segment in range(num_segments))
    return SegmentRoles(num_clips=len(chosen), num_foreground=counts)
