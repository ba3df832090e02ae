"""What a pool's actors leave to be finished without them: an upload needs a machine's disk, not its GPU.

Each is a Ray task on the machine of the actor that left it. It asks for memory but no CPU: an upload waits most of the
time, actors may have reserved all CPUs, and a machine on which anything is reserved is not taken for an idle one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Owner = TypeVar("Owner")

_MEMORY_BYTES = 256 << 20
"""An idle Ray worker with pyarrow and s3fs takes 150 MB, and parts of an upload are sent one at a time."""


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A worker's answer when the item has its value, but something is left to do that needs no worker.

    finish: called in another process of the same machine; once more when that process dies.
    """

    value: Any
    finish: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Left:
    """An unfinished answer and the machine that it is to be finished on."""

    unfinished: Unfinished
    node_id: str


def left_here(answer: object) -> object:
    """Called in an actor: its answer, with the machine where that is needed."""
    if isinstance(answer, Unfinished):
        return Left(unfinished=answer, node_id=ray.get_runtime_context().get_node_id())
    return answer


class Finishing(Generic[Owner]):
    """What is being finished, and for whom."""

    def __init__(self) -> None:
        self._owners: dict[ray.ObjectRef, tuple[Owner, Any]] = {}

    @property
    def references(self) -> list[ray.ObjectRef]:
        """What to wait for."""
        return list(self._owners)

    def start(self, left: Left, owner: Owner) -> None:
        """Begin; ``take`` gives owner and value back."""
        node = NodeAffinitySchedulingStrategy(left.node_id, soft=False)
        task = ray.remote(_finish).options(num_cpus=0, max_retries=1, memory=_MEMORY_BYTES, scheduling_strategy=node)
        self._owners[task.remote(left.unfinished.finish)] = owner, left.unfinished.value

    def take(self, reference: ray.ObjectRef) -> tuple[Owner, Any]:
        """Forget what has ended: whose it was, and the value."""
        return self._owners.pop(reference)

    def owners(self) -> list[Owner]:
        """Whose are still under way, one for each."""
        return [owner for owner, _ in self._owners.values()]

    def cancel(self) -> None:
        """End everything."""
        while self._owners:
            reference, _ = self._owners.popitem()
            try:
                ray.cancel(reference, force=True)
            except RayError:  # it has ended
                continue


def _finish(finish: Callable[[], None]) -> None:
    finish()
