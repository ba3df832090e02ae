"""Tests of a GPU: skipped where there is none, failing where one was promised."""

from __future__ import annotations

import os

import pytest
import torch


def gpu_or_skip() -> str:
    """Return the name of the GPU to test on."""
    if torch.cuda.is_available():
        return "cuda"
    message = "torch sees no CUDA device"
    if os.environ.get("GWM_REQUIRE_GPU") == "1":
        pytest.fail(f"{message}, and GWM_REQUIRE_GPU=1 wants one")
    pytest.skip(message)
