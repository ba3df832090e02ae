"""AdamW as GWM uses it: parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import torch
from torch import nn

from tasks.config import OptimisationConfig

# torch.nn's norm layers and embeddings; the authors' code sets their weight decay to 0 (released configuration,
# WEIGHT_DECAY_NORM and WEIGHT_DECAY_EMBED) and leaves it on all other parameters.
_UNDECAYED_MODULES: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
    nn.Embedding,
)


def learning_rate_at(step: int, config: OptimisationConfig) -> float:
    """Return the learning rate of the update after ``step`` finished updates.

    base * warm(step) * (1 - step / horizon) ** power, where warm rises linearly from ``warmup_start_factor`` to 1
    over ``warmup_steps`` (GWM's released scheduler; the two factors act at once).
    """
    horizon = config.decay_horizon_steps or config.num_steps
    decay = max(0.0, 1 - step / horizon) ** config.decay_power
    if step >= config.warmup_steps:
        return config.learning_rate * decay
    risen = step / config.warmup_steps
    return config.learning_rate * decay * (config.warmup_start_factor * (1 - risen) + risen)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the trainable parameters into a group with weight decay and one without, in the module's own order.

    Without decay: scales and biases of norm layers, and embeddings.
    """
    undecayed = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, _UNDECAYED_MODULES)
        for parameter in part.parameters(recurse=False)
    }
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if id(p) not in undecayed], "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) in undecayed], "weight_decay": 0.0},
    ]


def build_optimiser(module: nn.Module, config: OptimisationConfig) -> torch.optim.AdamW:
    """Build AdamW with betas 0.9 and 0.999; its rate is set anew at each step by ``set_learning_rate``."""
    groups = [group for group in parameter_groups(module, config.weight_decay) if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.999), fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate
