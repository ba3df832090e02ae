"""One update of the weights, and what happens when its numbers are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from model.types import LossTerms
from tasks.config import OptimisationConfig
from tasks.errors import TrainingError
from tasks.optimiser import learning_rate_at, set_learning_rate
from tasks.sampling import random_seed_for

MAX_SKIPS_IN_A_ROW = 25
"""Single overflows happen, above all in bf16; this many in a row mean that nothing is learnt any more."""


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """One step's numbers, averaged over the global batch.

    gradient_norm: 2-norm over all parameters before clipping.
    skipped: loss or gradient was not finite, so weights, optimiser and buffers are as before the step.
    """

    step: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    gradient_norm: float
    learning_rate: float
    skipped: bool


@dataclass(kw_only=True)
class SkipCounter:
    """Counts skipped steps, and gives up when they do not end."""

    total: int = 0
    in_a_row: int = 0

    def count(self, outcome: StepOutcome, step: int) -> None:
        """Take note of a step. Raises TrainingError after MAX_SKIPS_IN_A_ROW skipped ones in a row."""
        self.in_a_row = self.in_a_row + 1 if outcome.skipped else 0
        self.total += outcome.skipped
        if self.in_a_row >= MAX_SKIPS_IN_A_ROW:
            raise TrainingError(
                f"loss or gradient was not finite in {self.in_a_row} steps in a row, up to step {step + 1}: "
                f"loss {outcome.loss}, gradient norm {outcome.gradient_norm}. Lower optimisation.learning_rate, "
                "train with optimisation.precision=f32, or look for broken optical flow in the dataset"
            )

    def to_json(self) -> dict[str, int]:
        """Return plain values for the checkpoint."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    @classmethod
    def from_json(cls, state: Mapping[str, int] | None) -> SkipCounter:
        """Restore what ``to_json`` returned."""
        return cls(**(state or {}))


def train_step(
    network: nn.Module,
    batch: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    config: OptimisationConfig,
    *,
    step: int,
    rank: int,
    device: torch.device,
) -> StepOutcome:
    """Do update number ``step`` (from 0) on this worker's share of the batch.

    Every worker comes to the same decision about skipping, since all see the averaged loss and gradient.
    """
    rate = learning_rate_at(step, config)
    set_learning_rate(optimiser, rate)
    torch.manual_seed(random_seed_for(config.seed, step, rank))
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    on_device = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
        terms = cast(LossTerms, network(on_device, step / config.num_steps))
    terms.total.backward()
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip_norm)
    loss, gradient_norm, *parts = _averaged(torch.stack([terms.total.detach(), norm, *terms.parts.values()]))
    skipped = not (math.isfinite(loss) and math.isfinite(gradient_norm))
    if skipped:
        for buffer, before in buffers:
            buffer.copy_(before)
    else:
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return StepOutcome(
        step=step,
        loss=loss,
        parts=dict(zip(terms.parts, parts, strict=True)),
        gradient_norm=gradient_norm,
        learning_rate=rate,
        skipped=skipped,
    )


def _averaged(values: Tensor) -> list[float]:
    """Average over workers; every worker gets the same numbers, and the device is waited for once."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return [float(value) for value in values.tolist()]
