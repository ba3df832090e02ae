"""The loop of ``tasks/pool.py`` over Ray actors: who works on what, what becomes of it, and who ends when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from tasks.cluster import PoolResources
from tasks.errors import ServiceError
from tasks.finishing import Finishing, Left, left_here

Item = TypeVar("Item")

ITEMS_PER_ACTOR = 2
"""One under way and one at hand: an answer and the next question take this process 1 to 3 ms."""

LEFT_PER_ACTOR = 2
"""Items of an actor that may wait to be finished before it gets no more: what they hold on disk stays bounded."""

_MAX_FAILED_STARTS = 3
"""Processes that may die in a row while they are being set up before the pool gives up: no item is to blame."""


class Worker(Protocol):
    """What a pool runs: built once per process, then called once per item."""

    def run(self, item: Any, /) -> Any:
        """Work on one item; both item and result travel between processes, so keep them small.

        The result is the item's value, or Unfinished.
        """
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


class _Actor:
    """Lives in a process of its own. Building the worker is a call, so that its exceptions keep their type."""

    def __init__(self, worker_class: Callable[..., Worker], arguments: tuple[Any, ...]) -> None:
        self._build: Callable[[], Worker] = lambda: worker_class(*arguments)
        self._worker: Worker | None = None

    def start(self) -> None:
        self._worker = self._worker or self._build()

    def run(self, item: object) -> object:
        assert self._worker is not None, "start() comes first"
        return left_here(self._worker.run(item))


@dataclass(frozen=True)
class _Job(Generic[Item]):
    """An item to work on. alone: nothing is put behind it, so that a death can only be its own."""

    item: Item
    attempt: int = 1
    alone: bool = False


@dataclass(frozen=True, kw_only=True)
class _Call(Generic[Item]):
    """What an actor was asked; job is None while it is being set up."""

    reference: ray.ObjectRef
    job: _Job[Item] | None


@dataclass(kw_only=True, eq=False)
class _Member(Generic[Item]):
    """An actor and what it was asked and has not answered, in the order in which it will."""

    actor: ActorHandle
    calls: deque[_Call[Item]] = field(default_factory=deque)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """An idle actor, and what it was built for."""

    build: tuple[object, ...]
    actor: ActorHandle


_kept: list[_Kept] = []


@contextmanager
def actors_kept() -> Iterator[None]:
    """Let pools hand their actors on for the length of the block."""
    outermost, RayPool.keeping = not RayPool.keeping, True
    try:
        yield
    finally:
        if outermost:
            RayPool.keeping = False
            _end_kept()


def _end_kept() -> None:
    while _kept:
        _stop(_kept.pop().actor)


def _stop(actor: ActorHandle) -> None:
    with suppress(RayError):
        ray.kill(actor)


class RayPool(Generic[Item]):
    """The loop's state. While items wait, some actor is busy; it takes the next one as soon as it is free."""

    keeping = False

    def __init__(
        self,
        worker_class: Callable[..., Worker],
        arguments: tuple[Any, ...],
        items: Iterable[Item],
        resources: PoolResources,
        max_attempts: int,
        more_to_come: bool,
    ) -> None:
        # max_restarts=0: the pool replaces dead actors itself, so that a death is never blamed on the next item
        remote = ray.remote(max_restarts=0, max_task_retries=0)(_Actor)
        self._actor_class = remote.options(num_cpus=resources.num_cpus, num_gpus=resources.num_gpus)
        self._arguments = (worker_class, arguments)
        self._build = (worker_class, arguments, resources)
        self._num_actors = resources.num_actors
        self._max_attempts = max_attempts
        self._keep = more_to_come and self.keeping
        self._waiting: deque[_Job[Item]] = deque(_Job(item) for item in items)
        self._members: list[_Member[Item]] = []
        self._finishing: Finishing[tuple[_Member[Item], _Job[Item]]] = Finishing()
        self._failed_starts = 0

    def results(self) -> Iterator[PoolResult[Item]]:
        """Work on all items, and yield how each ended."""
        self._take_kept()
        while len(self._members) < min(self._num_actors, len(self._waiting)):
            self._start_actor()
        while self._waiting or self._finishing.references or self._at_work():
            busy = {member.calls[0].reference: member for member in self._members if member.calls}
            (done,), _ = ray.wait([*busy, *self._finishing.references], num_returns=1)
            result = self._end_call(busy[done]) if done in busy else self._end_finishing(done)
            if result is not None:
                yield result

    def _at_work(self) -> bool:
        return any(call.job for member in self._members for call in member.calls)

    def end(self) -> None:
        """Hand the actors on, or end them."""
        for member in self._members:
            if self._keep and not member.calls:
                _kept.append(_Kept(build=self._build, actor=member.actor))
            else:
                _stop(member.actor)

    def close(self) -> None:
        """End everything, in the middle of whatever it does."""
        self._finishing.cancel()
        for member in self._members:
            _stop(member.actor)

    def _take_kept(self) -> None:
        """Go on with the actors that an earlier pool of the same build left; others hold what this one needs."""
        while _kept:
            kept = _kept.pop()
            if kept.build == self._build and len(self._members) < self._num_actors:
                self._set_up(kept.actor)
            else:
                _stop(kept.actor)

    def _start_actor(self) -> None:
        self._set_up(self._actor_class.remote(*self._arguments))

    def _set_up(self, actor: ActorHandle) -> None:
        self._members.append(_Member(actor=actor, calls=deque([_Call(reference=actor.start.remote(), job=None)])))

    def _feed(self, member: _Member[Item]) -> None:
        """Give an actor work: the next item at once, the one after it while there are enough for everybody.

        One that left too much behind waits until some of that is finished.
        """
        num_left = sum(owner is member for owner, _ in self._finishing.owners())
        while self._waiting and num_left < LEFT_PER_ACTOR and (not member.calls or self._may_queue(member)):
            job = self._waiting.popleft()
            member.calls.append(_Call(reference=member.actor.run.remote(job.item), job=job))
        if not member.calls and not self._waiting and not self._keep:
            self._members.remove(member)
            _stop(member.actor)  # what it reserved is free for others while the last items end

    def _may_queue(self, member: _Member[Item]) -> bool:
        alone = self._waiting[0].alone or any(call.job is not None and call.job.alone for call in member.calls)
        return not alone and len(member.calls) < ITEMS_PER_ACTOR and len(self._waiting) >= self._num_actors

    def _end_call(self, member: _Member[Item]) -> PoolResult[Item] | None:
        call = member.calls.popleft()
        if call.job is None:
            self._end_start(member, call)
            return None
        return self._end_item(member, call.job, call.reference)

    def _end_start(self, member: _Member[Item], call: _Call[Item]) -> None:
        try:
            ray.get(call.reference)
        except RayTaskError as error:
            raise _cause(error) from error
        except RayError as error:
            self._members.remove(member)
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise ServiceError(
                    f"{self._failed_starts} processes in a row died before their first item ({_first_line(error)}); "
                    "look for missing memory, and for Ray's logs in /tmp/ray/session_latest/logs"
                ) from error
            self._start_actor()
        else:
            self._failed_starts = 0
            self._feed(member)

    def _end_item(self, member: _Member[Item], job: _Job[Item], reference: ray.ObjectRef) -> PoolResult[Item] | None:
        try:
            value = ray.get(reference)
        except RayTaskError as error:
            self._feed(member)
            return PoolResult(item=job.item, status="raised", attempts=job.attempt, error=_cause(error))
        except RayError as error:
            return self._end_of_process(member, job, error)
        if isinstance(value, Left):
            self._finishing.start(value, (member, job))
        self._feed(member)
        if isinstance(value, Left):
            return None
        return PoolResult(item=job.item, status="done", attempts=job.attempt, value=value)

    def _end_finishing(self, reference: ray.ObjectRef) -> PoolResult[Item] | None:
        (_, job), value = self._finishing.take(reference)
        result = PoolResult(item=job.item, status="done", attempts=job.attempt, value=value)
        try:
            ray.get(reference)
        except RayTaskError as error:
            result = replace(result, status="raised", value=None, error=_cause(error))
        except RayError as error:  # with its machine, and what was to be finished
            result = replace(result, status="died", value=None, error=error)
        again = result.status == "died" and job.attempt < self._max_attempts
        if again:
            self._waiting.append(_Job(job.item, job.attempt + 1))
        for idle in [member for member in self._members if not member.calls]:
            self._feed(idle)
        if self._waiting and len(self._members) < self._num_actors:
            self._start_actor()
        return None if again else result

    def _end_of_process(self, member: _Member[Item], job: _Job[Item], error: RayError) -> PoolResult[Item] | None:
        """Blame an item that was alone; of several, any may have done it: an answer can be lost with its process."""
        self._members.remove(member)
        suspects = [job, *(call.job for call in member.calls if call.job is not None)]
        blamed = len(suspects) == 1
        again = not blamed or job.attempt < self._max_attempts
        if not blamed:
            self._waiting.extendleft(replace(suspect, alone=True) for suspect in reversed(suspects))
        elif again:
            self._waiting.append(_Job(job.item, job.attempt + 1, alone=True))  # last, so that good items come first
        if self._waiting:
            self._start_actor()
        return None if again else PoolResult(item=job.item, status="died", attempts=job.attempt, error=error)


def _cause(error: RayTaskError) -> BaseException:
    return error.cause if isinstance(error.cause, BaseException) else error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
