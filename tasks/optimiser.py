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

# Embeddings that are plain parameters: Swin's tables of relative positions, which the authors' code names, and the
# class token and positions of a ViT, which timm leaves undecayed too.
_UNDECAYED_NAMES = ("relative_position_bias_table", "pos_embed", "cls_token")

BACKBONE_PREFIX = "network.backbone."
"""What the names of a method's pretrained parameters begin with."""


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


def parameter_groups(
    module: nn.Module, weight_decay: float, backbone_rate_factor: float = 1.0
) -> list[dict[str, object]]:
    """Split the trainable parameters into groups with and without weight decay, in the module's own order.

    Without decay: scales and biases of norm layers, and embeddings. Where the backbone's rate differs, its parameters
    are in two more groups; ``rate_factor`` of a group is what the learning rate is multiplied by.
    """
    undecayed = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, _UNDECAYED_MODULES)
        for parameter in part.parameters(recurse=False)
    }
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {
        (factor, decays): [] for factor in dict.fromkeys((1.0, backbone_rate_factor)) for decays in (True, False)
    }
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            factor = backbone_rate_factor if name.startswith(BACKBONE_PREFIX) else 1.0
            groups[factor, id(parameter) not in undecayed and not name.endswith(_UNDECAYED_NAMES)].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "rate_factor": factor}
        for (factor, decays), parameters in groups.items()
    ]


def build_optimiser(module: nn.Module, config: OptimisationConfig) -> torch.optim.AdamW:
    """Build AdamW with betas 0.9 and 0.999; its rate is set anew at each step by ``set_learning_rate``.

    Frozen parameters are left out.
    """
    groups = parameter_groups(module, config.weight_decay, config.backbone_rate_factor)
    trained = [group for group in groups if group["params"]]
    return torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.999), fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the learning rate, times its factor; groups of older checkpoints have none."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
