"""One update: what it changes, what it leaves alone, and that two workers make the update of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing import spawn

from model.types import LossTerms
from tasks.config import OptimisationConfig
from tasks.errors import TrainingError
from tasks.optimiser import build_optimiser, learning_rate_at
from tasks.sampling import ClipIndex, batch_for, plan_sampling
from tasks.train_step import MAX_SKIPS_IN_A_ROW, SkipCounter, StepOutcome, train_step

CONFIG = OptimisationConfig(
    num_steps=20, global_batch_size=6, learning_rate=0.1, warmup_steps=0, gradient_clip_norm=0.5
)
CPU = torch.device("cpu")


class Regression(nn.Module):
    """A method without normalisation over the batch, so that its loss is a plain mean over samples."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, batch: Mapping[str, Tensor], progress: float = 1.0) -> LossTerms:
        self.calls += 1
        error = self.linear(self.dropout(batch["x"]))[:, 0] - batch["y"]
        return LossTerms(total=(error**2).mean(), parts={"bias": self.linear.bias.detach().mean()})


def make(**options: float) -> tuple[Regression, torch.optim.Optimizer]:
    torch.manual_seed(1)
    module = Regression(**options)
    return module, build_optimiser(module, CONFIG)


def batch_of(step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
    """Each sample's numbers follow from its key, so the same samples give the same batch on any worker."""
    plan = plan_sampling(seed=4, clips=[ClipIndex(num_frames=9)] * 3, gaps=(1, -1))
    keys = batch_for(plan, step=step, global_batch_size=6, rank=rank, world_size=world_size)
    x = torch.tensor([[key.clip, key.frame / 9, key.gap] for key in keys], dtype=torch.float32)
    return {"x": x, "y": x.sum(1)}


def step_with(module: nn.Module, optimiser: torch.optim.Optimizer, step: int, batch: dict[str, Tensor]) -> StepOutcome:
    return train_step(module, batch, optimiser, CONFIG, step=step, rank=0, device=CPU)


def test_an_update_is_a_clipped_adamw_update() -> None:
    module, optimiser = make()
    twin, _ = make()
    plain = torch.optim.AdamW(twin.parameters(), lr=0.1, weight_decay=0.01)
    for step in range(3):
        outcome = step_with(module, optimiser, step, batch_of(step))
        loss = twin(batch_of(step)).total
        loss.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in twin.parameters()))  # type: ignore[arg-type, misc]
        for parameter in twin.parameters():
            parameter.grad *= min(1.0, 0.5 / (norm.item() + 1e-6))  # type: ignore[operator]
        plain.param_groups[0]["lr"] = learning_rate_at(step, CONFIG)
        plain.step()
        plain.zero_grad()
        assert outcome.loss == pytest.approx(loss.item())
        assert outcome.gradient_norm == pytest.approx(norm.item())
        assert outcome.learning_rate == learning_rate_at(step, CONFIG)
        assert not outcome.skipped
    for parameter, expected in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_random_numbers_depend_on_the_step_alone() -> None:
    losses = []
    for disturbance in (0, 5):
        module, optimiser = make(dropout=0.5)
        torch.rand(disturbance)
        losses.append([step_with(module, optimiser, step, batch_of(0)).loss for step in (7, 8)])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(value: float) -> None:
    module, optimiser = make()
    step_with(module, optimiser, 0, batch_of(0))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    moments = [entry["exp_avg"].clone() for entry in optimiser.state.values()]
    broken = batch_of(1)
    broken["y"][0] = value
    outcome = step_with(module, optimiser, 1, broken)
    assert outcome.skipped
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(torch.equal(new["exp_avg"], old) for new, old in zip(optimiser.state.values(), moments, strict=True))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not step_with(module, optimiser, 2, batch_of(2)).skipped


def test_too_many_skips_in_a_row_end_the_training() -> None:
    good = StepOutcome(step=0, loss=1.0, gradient_norm=1.0, learning_rate=0.1, skipped=False)
    bad = StepOutcome(step=0, loss=float("nan"), gradient_norm=1.0, learning_rate=0.1, skipped=True)
    counter = SkipCounter()
    for outcome in [bad] * (MAX_SKIPS_IN_A_ROW - 1) + [good] + [bad] * (MAX_SKIPS_IN_A_ROW - 1):
        counter.count(outcome, 0)
    assert counter.total == 2 * (MAX_SKIPS_IN_A_ROW - 1)
    counter = SkipCounter.from_json(counter.to_json())
    with pytest.raises(
        TrainingError, match=r"not finite in 25 steps in a row, up to step 100: loss nan.*learning_rate"
    ):
        counter.count(bad, 99)


def train_shares(rank: int, world_size: int, folder: str) -> None:
    """Three updates on this worker's shares; rank 0 leaves weights and losses behind."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    module, optimiser = make()
    network = nn.parallel.DistributedDataParallel(module)
    outcomes = [
        train_step(network, batch_of(step, rank, world_size), optimiser, CONFIG, step=step, rank=rank, device=CPU)
        for step in range(3)
    ]
    broken = batch_of(3, rank, world_size)
    if rank == 1:  # only one worker's share is broken, and all of them must skip
        broken["y"][0] = float("nan")
    skipped = train_step(network, broken, optimiser, CONFIG, step=3, rank=rank, device=CPU).skipped
    torch.save(
        {
            "weights": module.state_dict(),
            "losses": [outcome.loss for outcome in outcomes],
            "norms": [outcome.gradient_norm for outcome in outcomes],
            "skipped": skipped,
        },
        f"{folder}/rank-{rank}.pt",
    )
    dist.barrier()
    # Leave without C++ teardown: gloo's threads outlive the group now and then, and their destructor aborts.
    os._exit(0)


def test_two_gloo_workers_make_the_updates_of_one(tmp_path: Path) -> None:
    spawn(train_shares, args=(2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    module, optimiser = make()
    alone = [step_with(module, optimiser, step, batch_of(step)) for step in range(3)]
    for found in ranks:
        assert found["losses"] == pytest.approx([outcome.loss for outcome in alone], rel=1e-6)
        assert found["norms"] == pytest.approx([outcome.gradient_norm for outcome in alone], rel=1e-6)
        assert found["skipped"]
        for name in ("linear.weight", "linear.bias"):
            torch.testing.assert_close(found["weights"][name], module.state_dict()[name], rtol=1e-6, atol=1e-7)
