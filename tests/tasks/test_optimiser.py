from __future__ import annotations

import pytest
import torch
from torch import nn

from model.methods import build_method
from model.methods.gwm import GwmConfig
from tasks.config import OptimisationConfig
from tasks.optimiser import build_optimiser, learning_rate_at, parameter_groups, set_learning_rate

PAPER = OptimisationConfig(num_steps=20_000, decay_horizon_steps=160_000)


def test_warm_up_and_decay_are_those_of_the_released_code() -> None:
    # methods: base * warm(it) * (1 - it/160000)^0.9, warm linear from 1e-6 over 1500; start 1.5e-10, 0.89 x base at 20k
    assert learning_rate_at(0, PAPER) == pytest.approx(1.5e-10)
    assert learning_rate_at(750, PAPER) == pytest.approx(1.5e-4 * 0.5000005 * (1 - 750 / 160_000) ** 0.9)
    assert learning_rate_at(1500, PAPER) == pytest.approx(1.5e-4 * (1 - 1500 / 160_000) ** 0.9)
    assert learning_rate_at(20_000, PAPER) / 1.5e-4 == pytest.approx(0.89, abs=0.005)


def test_rate_equals_torch_schedulers_multiplied() -> None:
    config = OptimisationConfig(
        num_steps=40, warmup_steps=10, warmup_start_factor=0.1, decay_power=0.9, learning_rate=2.0
    )
    parameter = nn.Parameter(torch.zeros(1))

    def rates_of(build: object) -> list[float]:
        optimiser = torch.optim.SGD([parameter], lr=1.0)
        scheduler = build(optimiser)  # type: ignore[operator]
        rates = []
        for _ in range(40):
            rates.append(scheduler.get_last_lr()[0])
            optimiser.step()
            scheduler.step()
        return rates

    warm = rates_of(lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=10))
    poly = rates_of(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=40, power=0.9))
    expected = [2.0 * a * b for a, b in zip(warm, poly, strict=True)]
    assert [learning_rate_at(step, config) for step in range(40)] == pytest.approx(expected)


def test_rate_ends_at_zero_and_without_warm_up_starts_at_base() -> None:
    config = OptimisationConfig(num_steps=10, warmup_steps=0)
    assert learning_rate_at(0, config) == config.learning_rate
    assert learning_rate_at(10, config) == 0
    assert learning_rate_at(11, config) == 0


def test_norms_and_embeddings_are_not_decayed() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Embedding(5, 4), nn.Linear(4, 2)
    )
    decayed, undecayed = parameter_groups(module, 0.01)
    assert [parameter.shape for parameter in undecayed["params"]] == [(4,), (4,), (4,), (4,), (5, 4)]  # type: ignore[attr-defined]
    assert len(decayed["params"]) == 4  # type: ignore[arg-type]
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.01, 0.0)


def test_groups_hold_every_trainable_parameter_of_a_method_once() -> None:
    module = build_method(GwmConfig(base_channels=4))
    next(module.parameters()).requires_grad_(False)
    groups = parameter_groups(module, 0.01)
    grouped = [id(p) for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


class Table(nn.Module):
    """Stands for timm's networks, whose embeddings are plain parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.ones(3))
        self.relative_position_bias_table = nn.Parameter(torch.ones(5))
        self.linear = nn.Linear(2, 1)


class Pretrained(nn.Module):
    """A method with a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.ModuleDict({"backbone": Table(), "head": nn.Linear(2, 1)})


def test_a_backbone_has_a_rate_of_its_own_and_tables_are_not_decayed() -> None:
    module = Pretrained()
    optimiser = build_optimiser(module, OptimisationConfig(backbone_rate_factor=0.1, weight_decay=0.5))
    set_learning_rate(optimiser, 0.1)
    found = [([p.numel() for p in g["params"]], g["lr"], g["weight_decay"]) for g in optimiser.param_groups]
    assert found == [
        ([2, 1], 0.1, 0.5),
        ([2, 1], pytest.approx(0.01), 0.5),
        ([3, 5], pytest.approx(0.01), 0.0),
    ]
    module.network["backbone"].requires_grad_(False)
    (group,) = build_optimiser(module, OptimisationConfig(backbone_rate_factor=0.1)).param_groups
    assert [p.numel() for p in group["params"]] == [2, 1]


def test_optimisers_saved_without_factors_are_restored() -> None:
    module = Pretrained()
    optimiser = build_optimiser(module, OptimisationConfig())
    state = optimiser.state_dict()
    for group in state["param_groups"]:
        del group["rate_factor"]
    optimiser.load_state_dict(state)
    set_learning_rate(optimiser, 0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.25]


def test_weight_decay_only_shrinks_the_decayed_group() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    optimiser = build_optimiser(module, OptimisationConfig(weight_decay=0.5))
    set_learning_rate(optimiser, 0.1)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    factors = [0.95, 0.95, 1.0, 1.0]  # 1 - rate * decay, AdamW's decoupled form
    for parameter, old, factor in zip(module.parameters(), before, factors, strict=True):
        torch.testing.assert_close(parameter.detach(), old * factor)
