"""The project's errors.

::

    GwmError                  root (model/errors.py)
    ├── InputError            a value from the caller is unusable (also a ValueError)
    ├── WeightsError          weights are missing, altered or do not fit
    ├── ConfigError           an experiment or a setting is misspelt, out of range or contradicts another
    ├── StorageError          a place can not be read or written
    ├── DatasetError          a dataset does not exist, has no such version, or was made with another recipe
    ├── ErrorBudgetError      too much of an ingest was refused: carries its summary
    ├── FootageError          one piece of footage can not be used: carries a reason from a closed list
    ├── ModelNotFoundError    a model reference leads nowhere
    ├── TrainingError         training diverged, or its workers died too often
    ├── AblationError         rows of an ablation table failed: carries the table
    └── ServiceError          a local server did not start, or its port is taken

Every message says what was got, what was expected, and what to do. All of them survive pickling, since Ray ships
them between processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from model.errors import GwmError, InputError, WeightsError

RejectionReason = Literal[
    "not_found",  # nothing at that URI
    "forbidden",  # a link out of its folder, a pipe, a device, a name that is no text: it is not opened
    "not_video",  # no demuxer of the allowed ones recognises the bytes
    "no_video_stream",  # audio only, attachments, cover art
    "too_short",  # fewer than two frames after resampling: no motion to learn from
    "corrupt",  # decoding failed part of the way
    "mixed_sizes",  # a folder whose frames differ in size
    "annotation_mismatch",  # a mask that does not fit its frame
    "too_large",  # beyond the limits on pixels, frames or bytes
    "too_small",  # frames that the optical flow estimator can not work on
    "changed",  # while it was ingested: its bytes are not those that were hashed
    "near_duplicate",  # it looks like footage that is there, and such was not wanted
    "timeout",  # beyond the limit on time
    "crashed",  # the process that decoded it died
    "internal",  # our fault: the detail holds the error
]
"""Why footage was refused. The list is closed: reports and retries select on it."""

REJECTION_REASONS: tuple[RejectionReason, ...] = get_args(RejectionReason)


class ConfigError(GwmError, ValueError):
    """An experiment or a setting is misspelt, out of range or contradicts another."""


class StorageError(GwmError):
    """A place can not be read or written."""


class DatasetError(GwmError):
    """A dataset does not exist, has no such version, or was made with another recipe."""


class ErrorBudgetError(GwmError):
    """More of an ingest was refused than its error budget allows; what it did is recorded, and told in ``summary``."""

    def __init__(self, message: str, summary: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.message = message
        self.summary = summary

    def __reduce__(self) -> tuple[type[ErrorBudgetError], tuple[str, Mapping[str, Any]]]:
        return ErrorBudgetError, (self.message, self.summary)


class ModelNotFoundError(GwmError):
    """A model reference leads nowhere."""


class TrainingError(GwmError):
    """Training diverged, or its workers died too often."""


class AblationError(GwmError):
    """Rows of an ablation table failed; the others are in ``table``, with the reasons."""

    def __init__(self, message: str, table: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self.message = message
        self.table = table

    def __reduce__(self) -> tuple[type[AblationError], tuple[str, Sequence[Mapping[str, Any]]]]:
        return AblationError, (self.message, self.table)


class ServiceError(GwmError):
    """A local server did not start, or its port is taken."""


class FootageError(GwmError):
    """One piece of footage can not be used.

    Example scenario: an audio file renamed to ``.mp4`` among a thousand videos; it becomes a row of the dead-letter
    table and the other 999 go on.
    """

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        self.reason: RejectionReason = reason
        self.detail = printable(detail)
        super().__init__(f"{reason}: {self.detail}")

    def __reduce__(self) -> tuple[type[FootageError], tuple[RejectionReason, str]]:
        return FootageError, (self.reason, self.detail)


def printable(text: str) -> str:
    """``text`` with escapes for what no terminal and no table should get: control characters, bytes of no encoding."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


__all__ = [
    "REJECTION_REASONS",
    "AblationError",
    "ConfigError",
    "DatasetError",
    "ErrorBudgetError",
    "FootageError",
    "GwmError",
    "InputError",
    "ModelNotFoundError",
    "RejectionReason",
    "ServiceError",
    "StorageError",
    "TrainingError",
    "WeightsError",
    "printable",
]
