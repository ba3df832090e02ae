"""Where networks of this process run."""

from __future__ import annotations

import torch

from tasks.errors import ConfigError
from tasks.settings import Settings


def own_device(settings: Settings) -> str:
    """Return ``cuda`` where there is a GPU and the settings do not forbid it, else ``cpu``.

    Raises ConfigError when the settings demand a GPU that is not there.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("GWM_DEVICE=cuda, but torch sees no GPU here; use auto or cpu")
    return "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
