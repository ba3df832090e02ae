"""Finds the archives of a directory and checks each; what has no check counts as a miss."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.golden.checks import CHECKS
from tests.golden.comparison import Comparison


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file or folder.

    largest_relative_error: over all its quantities; None when nothing could be compared.
    """

    file: str
    passed: bool
    largest_relative_error: float | None
    detail: str

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "MISS"
        error = self.largest_relative_error
        shown = "nothing compared" if error is None else f"largest relative error {error:.1e}"
        return f"{verdict}  {self.file:<32}  {shown:<31}  {self.detail}"


def archive_names(directory: Path) -> dict[str, Path]:
    """Return everything in the directory that must have a check, by the name a check would have.

    Hidden files are left out, and so are companions of an archive that is there.
    """
    entries = {
        path.stem if path.suffix == ".npz" else path.name: path
        for path in sorted(directory.iterdir())
        if not path.name.startswith(".")
    }
    used = {companion for name in entries if name in CHECKS for companion in CHECKS[name].companions}
    return {name: path for name, path in entries.items() if name not in used}


def run_checks(directory: Path, davis_root: Path, only: Collection[str] | None = None) -> list[Outcome]:
    """Check every archive of a directory, or those named in ``only``, which must be there and have a check."""
    archives = archive_names(directory)
    for name in only or ():
        if name not in CHECKS or name not in archives:
            raise ValueError(
                f"{name!r} can not be checked: checks are known for {', '.join(CHECKS)}, and {directory} holds "
                f"{', '.join(archives) or 'nothing'}"
            )
    chosen = archives if only is None else {name: archives[name] for name in only}
    return [_check(name, path, davis_root) for name, path in chosen.items()]


def _check(name: str, path: Path, davis_root: Path) -> Outcome:
    if name not in CHECKS:
        return _miss(path, "no check is known for this file")
    try:
        comparisons = CHECKS[name].run(path, davis_root)
    except Exception as error:  # the border where a broken archive becomes a line, and the others go on
        return _miss(path, f"{type(error).__name__}: {error}")
    return _judge(path, comparisons)


def _judge(path: Path, comparisons: list[Comparison]) -> Outcome:
    if not comparisons:
        return _miss(path, "the archive holds nothing to compare")
    missed = [comparison for comparison in comparisons if not comparison.passed]
    worst = max(comparisons, key=lambda comparison: (not comparison.passed, comparison.relative_error))
    return Outcome(
        file=path.name,
        passed=not missed,
        largest_relative_error=float(np.max([comparison.relative_error for comparison in comparisons])),
        detail="; ".join(str(comparison) for comparison in missed) or f"{len(comparisons)} quantities, worst {worst}",
    )


def _miss(path: Path, reason: str) -> Outcome:
    return Outcome(file=path.name, passed=False, largest_relative_error=None, detail=reason)
