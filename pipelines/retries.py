"""When a Prefect task is worth repeating.

Bad input says the same the second time; a store, a network or a killed process may not.
"""

from __future__ import annotations

from typing import Any, TypedDict

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun

from tasks.errors import (
    ConfigError,
    DatasetError,
    FootageError,
    InputError,
    ModelNotFoundError,
    TrainingError,
    WeightsError,
)

_SAME_AGAIN = (
    ConfigError,
    DatasetError,
    FootageError,
    InputError,
    ModelNotFoundError,
    TrainingError,
    WeightsError,
    TypeError,
    ValueError,
)


def worth_repeating(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect whether what ended this attempt may not happen again."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, _SAME_AGAIN)


class _RetryOptions(TypedDict):
    retry_condition_fn: Any


NOT_FOR_BAD_INPUT: _RetryOptions = {"retry_condition_fn": worth_repeating}
"""Options of a ``@task`` that retries."""
