"""``torch.compile`` for training: the networks of a method, in place, so that a checkpoint does not know of it."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from tasks.errors import ConfigError


def compile_networks(method: nn.Module, device: torch.device) -> None:
    """Compile each direct part of a method; the loss around them stays as it is.

    ``torch.compile(module)`` would wrap a part and put ``_orig_mod.`` into every name of its state; ``Module.compile``
    changes only how the part is called. The loss solves six equations per segment in float64, which compiling can not
    speed up. Shapes are taken as they come: training batches are all alike.
    Raises ConfigError where the compiler is missing that generated code for ``device`` needs.
    """
    _require_compiler(device)
    for part in method.children():
        part.compile(dynamic=False)


def running_eagerly(*, compiled: bool) -> AbstractContextManager[object]:
    """Call the parts of a compiled method uncompiled for a while: for a single frame compiling does not pay."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _require_compiler(device: torch.device) -> None:
    """Say at the start what would else be an error from deep inside the first step."""
    if device.type == "cpu":
        variable, usual = "CXX", ["clang++" if sys.platform == "darwin" else "g++"]
    else:
        variable, usual = "CC", ["gcc", "clang"]  # Triton builds a launcher for each kernel
    wanted = [os.environ[variable]] if os.environ.get(variable) else usual
    if not any(shutil.which(name) for name in wanted):
        raise ConfigError(
            f"optimisation.compile=true: found no {' or '.join(wanted)}, which torch.compile needs on {device.type}; "
            f"install a compiler, name one in {variable}, or set optimisation.compile=false"
        )
