"""A pool of Ray actors over many items: every item ends as one result, whatever happens to it.

An exception is a result, and so is the death of the process that worked on an item (a segmentation fault in a decoder,
the kernel's out-of-memory killer): the item is tried again in a new process up to ``max_attempts`` times, and the
other items never notice. One item per actor is under way, so memory does not grow with the number of items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from tasks.cluster import PoolResources
from tasks.errors import ServiceError

Item = TypeVar("Item")

_MAX_FAILED_STARTS = 3
"""Processes that may die in a row while they are being set up before the pool gives up: no item is to blame."""


class Worker(Protocol):
    """What a pool runs: built once per process, then called once per item."""

    def run(self, item: Any, /) -> Any:
        """Work on one item; both item and result travel between processes, so keep them small."""
        ...


@dataclass(frozen=True, kw_only=True)
class PoolResult(Generic[Item]):
    """How one item ended.

    status: done with a ``value``; raised with the ``error``; died when its process ended ``attempts`` times.
    """

    item: Item
    status: Literal["done", "raised", "died"]
    attempts: int
    value: Any = None
    error: BaseException | None = None


def run_pool(
    worker_class: Callable[..., Worker],
    arguments: tuple[Any, ...],
    items: Iterable[Item],
    *,
    resources: PoolResources,
    max_attempts: int = 2,
    on_result: Callable[[PoolResult[Item]], None],
) -> None:
    """Build ``worker_class(*arguments)`` in ``resources.num_actors`` processes, and call ``run`` once per item.

    ``on_result`` is called in this process, once per item, in the order in which items end; what it raises ends
    the pool. An exception of the constructor is raised here, since every item would meet it. Raises ServiceError
    when processes keep dying before they are set up.
    """
    pool = _Pool(worker_class, arguments, items, resources, max_attempts)
    try:
        for result in pool.results():
            on_result(result)
    finally:
        pool.close()


class _Actor:
    """Lives in a process of its own. Building the worker is a call, so that its exceptions keep their type."""

    def __init__(self, worker_class: Callable[..., Worker], arguments: tuple[Any, ...]) -> None:
        self._build: Callable[[], Worker] = lambda: worker_class(*arguments)
        self._worker: Worker | None = None

    def start(self) -> None:
        self._worker = self._build()

    def run(self, item: object) -> object:
        assert self._worker is not None, "start() comes first"
        return self._worker.run(item)


@dataclass(frozen=True, kw_only=True)
class _Call(Generic[Item]):
    """What an actor is busy with: (item, attempt), or None while it is being set up."""

    actor: ActorHandle
    job: tuple[Item, int] | None


class _Pool(Generic[Item]):
    """The loop's state. While items wait, some actor is busy; it takes the next one as soon as it is free."""

    def __init__(
        self,
        worker_class: Callable[..., Worker],
        arguments: tuple[Any, ...],
        items: Iterable[Item],
        resources: PoolResources,
        max_attempts: int,
    ) -> None:
        # max_restarts=0: the pool replaces dead actors itself, so that a death is never blamed on the next item
        remote = ray.remote(max_restarts=0, max_task_retries=0)(_Actor)
        self._actor_class = remote.options(num_cpus=resources.num_cpus, num_gpus=resources.num_gpus)
        self._arguments = (worker_class, arguments)
        self._num_actors = resources.num_actors
        self._max_attempts = max_attempts
        self._waiting: deque[tuple[Item, int]] = deque((item, 1) for item in items)
        self._calls: dict[ray.ObjectRef, _Call[Item]] = {}
        self._failed_starts = 0

    def results(self) -> Iterator[PoolResult[Item]]:
        for _ in range(min(self._num_actors, len(self._waiting))):
            self._start_actor()
        while self._waiting or any(call.job for call in self._calls.values()):
            done, _ = ray.wait(list(self._calls), num_returns=1)
            call = self._calls.pop(done[0])
            if call.job is None:
                self._end_start(call, done[0])
            elif (result := self._end_item(call.actor, call.job, done[0])) is not None:
                yield result

    def close(self) -> None:
        for call in self._calls.values():
            self._stop(call.actor)

    def _start_actor(self) -> None:
        actor = self._actor_class.remote(*self._arguments)
        self._calls[actor.start.remote()] = _Call(actor=actor, job=None)

    def _stop(self, actor: ActorHandle) -> None:
        with suppress(RayError):
            ray.kill(actor)

    def _next_item(self, actor: ActorHandle) -> None:
        if not self._waiting:
            self._stop(actor)  # what it reserved is free for others while the last items end
            return
        job = self._waiting.popleft()
        self._calls[actor.run.remote(job[0])] = _Call(actor=actor, job=job)

    def _end_start(self, call: _Call[Item], reference: ray.ObjectRef) -> None:
        try:
            ray.get(reference)
        except RayTaskError as error:
            raise _cause(error) from error
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise ServiceError(
                    f"{self._failed_starts} processes in a row died before their first item ({_first_line(error)}); "
                    "look for missing memory, and for Ray's logs in /tmp/ray/session_latest/logs"
                ) from error
            self._start_actor()
        else:
            self._failed_starts = 0
            self._next_item(call.actor)

    def _end_item(self, actor: ActorHandle, job: tuple[Item, int], reference: ray.ObjectRef) -> PoolResult[Item] | None:
        item, attempt = job
        try:
            value = ray.get(reference)
        except RayTaskError as error:
            self._next_item(actor)
            return PoolResult(item=item, status="raised", attempts=attempt, error=_cause(error))
        except RayError as error:
            return self._end_of_process(item, attempt, error)
        self._next_item(actor)
        return PoolResult(item=item, status="done", attempts=attempt, value=value)

    def _end_of_process(self, item: Item, attempt: int, error: RayError) -> PoolResult[Item] | None:
        again = attempt < self._max_attempts
        if again:
            self._waiting.append((item, attempt + 1))  # last, so that good items come first
        if self._waiting:
            self._start_actor()
        return None if again else PoolResult(item=item, status="died", attempts=attempt, error=error)


def _cause(error: RayTaskError) -> BaseException:
    return error.cause if isinstance(error.cause, BaseException) else error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
