"""The methods by name. A fourth method is one line here, one file beside this one and one preset."""

from __future__ import annotations

from torch import nn

from model.methods.gwm import Gwm, GwmConfig

MethodConfig = GwmConfig

_METHODS = {"gwm": Gwm}


def build_method(config: MethodConfig) -> nn.Module:
    """Build the method that ``config`` describes; the result implements ``model.methods.base.Method``."""
    return _METHODS[config.name](config)


__all__ = ["MethodConfig", "build_method"]
