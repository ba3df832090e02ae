"""Which code computed a result: the git commit of the checkout, or the version of the installed wheel."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "gwm"


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return ``git:<commit>``, with ``+changes`` when tracked files differ from it, or ``wheel:<version>``."""
    root = Path(__file__).resolve().parents[1]
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        if commit:
            changed = _git(root, "status", "--porcelain", "--untracked-files=no")
            return f"git:{commit}{'+changes' if changed else ''}"
    return f"wheel:{installed_version()}"


def installed_version() -> str:
    """Return the version of the installed distribution, ``unknown`` when it runs from a bare folder."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine, or a disk that hangs
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
