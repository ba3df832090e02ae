"""Where the reference data lies beside the checkout: real footage with masks, numbers recorded from other programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("GWM_TEST_SHARED", Path(__file__).resolve().parents[2] / "shared"))
GOLDEN = SHARED / "golden"
DAVIS = SHARED / "data" / "davis16"


def shared_or_skip(path: Path) -> Path:
    """Return ``path``; skip the test when the reference data is absent, but fail where CI=true."""
    if path.exists():
        return path
    message = f"reference data not found at {path}; set GWM_TEST_SHARED to its folder"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
