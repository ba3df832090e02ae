"""Where networks of this process run."""

from __future__ import annotations

import os

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


def num_cpus() -> int:
    """Return how many CPUs this process may use, where the system tells, else how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
