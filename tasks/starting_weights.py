"""The weights that a training starts from, besides random ones: a model's, or those of a pretrained backbone."""

from __future__ import annotations

from typing import cast

from torch import nn

from model.methods import MethodConfig
from model.methods.gwm import Gwm
from model.weights import fit_state_dict
from tasks.errors import ConfigError
from tasks.model_package import load_model
from tasks.registry import resolve_model
from tasks.settings import Settings


def load_starting_weights(
    module: nn.Module, config: MethodConfig, initial_model: str | None, settings: Settings
) -> None:
    """Load the initial model, or else the backbone's weights that ``config`` names.

    Raises ModelNotFoundError or WeightsError when they can not be had or do not fit, ConfigError when a backbone would
    stay as random as it is.
    """
    if initial_model is not None:
        loaded = load_model(str(resolve_model(initial_model, settings)))
        fit_state_dict(module, cast(nn.Module, loaded.method).state_dict(), source=initial_model)
    elif config.network == "maskformer":
        _load_backbone(cast(Gwm, module), config, settings)


def _load_backbone(module: Gwm, config: MethodConfig, settings: Settings) -> None:
    wanted = config.maskformer
    if wanted.backbone_weights is None:
        if not wanted.train_backbone:
            raise ConfigError(
                "method.maskformer.backbone_weights is unset and train_backbone is false: the backbone would stay "
                "random. Name its weights, start from an initial model, or set train_backbone=true"
            )
        return
    from tasks.backbones import load_backbone  # timm takes seconds to import

    # Weights know their network by its published size, which a divided one has not.
    networks = (wanted.backbone,) if wanted.width_divisor == 1 else ()
    found = load_backbone(
        wanted.backbone_weights, wanted.backbone_sha256, networks=networks, cache=settings.weights_path
    )
    module.load_backbone(found.state, source=wanted.backbone_weights)
