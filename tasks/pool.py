"""A pool of Ray actors over many items: every item ends as one result, whatever happens to it.

An exception is a result, and so is the death of the process that worked on an item (a segmentation fault in a decoder,
the kernel's out-of-memory killer): the item is tried again in a new process, with nothing behind it, until it has died
alone ``max_attempts`` times, and the other items never notice. An actor has one item under way and the next at hand,
so that it never waits for this process, and memory does not grow with the number of items. What an actor leaves
Unfinished, such as an upload, is finished beside its next items, and after it gave back its GPU when there are none.
Whatever ends the loop, Ctrl-C or a cancelled flow too, ends the actors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tasks.cluster import PoolResources, ray_session
from tasks.finishing import Unfinished
from tasks.ray_pool import PoolResult, RayPool, Worker, actors_kept
from tasks.settings import Settings

Item = TypeVar("Item")


def run_pool(
    worker_class: Callable[..., Worker],
    arguments: tuple[Any, ...],
    items: Iterable[Item],
    *,
    resources: PoolResources,
    max_attempts: int = 2,
    more_to_come: bool = False,
    on_result: Callable[[PoolResult[Item]], None],
) -> None:
    """Build ``worker_class(*arguments)`` in ``resources.num_actors`` processes, and call ``run`` once per item.

    ``on_result`` is called in this process, once per item, in the order in which items end; what it raises ends
    the pool. An exception of the constructor is raised here, since every item would meet it. Raises ServiceError
    when processes keep dying before they are set up.

    No actors at all (``num_actors=0``) means that this process does the work: nothing is protected from a crash then,
    and a debugger sees everything. more_to_come: inside ``pool_session`` the actors wait for the next call with the
    same worker, instead of ending as soon as no item waits, which is what gives their GPUs back.
    """
    if resources.num_actors == 0:
        _run_here(worker_class, arguments, items, on_result)
        return
    pool = RayPool(worker_class, arguments, items, resources, max_attempts, more_to_come)
    try:
        for result in pool.results():
            on_result(result)
    except BaseException:
        pool.close()
        raise
    pool.end()


@contextmanager
def pool_session(settings: Settings) -> Iterator[None]:
    """Have what pools need over any number of calls: Ray, and the actors that one call hands on to the next.

    Setting an actor up imports torch and loads weights, which takes seconds. Nothing is needed, nor started, with
    ``ingest_actors=0``. Raises ServiceError as ``ray_session`` does.
    """
    if settings.ingest_actors == 0:
        yield
        return
    with ray_session(settings), actors_kept():
        yield


def _run_here(
    worker_class: Callable[..., Worker],
    arguments: tuple[Any, ...],
    items: Iterable[Item],
    on_result: Callable[[PoolResult[Item]], None],
) -> None:
    worker: Worker | None = None
    for item in items:
        worker = worker or worker_class(*arguments)
        try:
            result = PoolResult(item=item, status="done", attempts=1, value=_finished(worker.run(item)))
        except Exception as error:
            result = PoolResult(item=item, status="raised", attempts=1, error=error)
        on_result(result)


def _finished(answer: Any) -> Any:
    if not isinstance(answer, Unfinished):
        return answer
    answer.finish()
    return answer.value


__all__ = ["PoolResult", "Unfinished", "Worker", "pool_session", "run_pool"]
