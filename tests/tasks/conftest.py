"""What several tests of scoring and segmenting start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tasks.benchmarks import Benchmark, open_benchmark
from tests.tasks.moving_square import square_clip, write_davis
from tests.tasks.tiny_models import saved_model


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread whatever a training before has set: a few thousand pixels gain nothing, and would wait for others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def benchmark_of_two(tmp_path: Path) -> Benchmark:
    """Two clips of a moving square in the layout of DAVIS2016."""
    clips = {"dog": square_clip(6), "libby": square_clip(5, seed=1)}
    return open_benchmark("davis16", str(write_davis(tmp_path / "davis", clips)))


@pytest.fixture
def model_uri(tmp_path: Path) -> str:
    """A tiny saved model."""
    return saved_model(tmp_path / "model")
