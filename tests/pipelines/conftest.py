"""One Prefect server for all flow tests, and footage small enough for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Prefect reads it when it is imported, which the test modules do.
os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="gwm-tests-prefect-"))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with a database of its own; flows that are called run against it."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short rendered clips with their masks, as the demo has them."""
    from tasks.rendering import render_footage

    folder = tmp_path_factory.mktemp("rendered")
    render_footage(folder, num_clips=2, num_frames=6, size=(64, 112))
    return folder
