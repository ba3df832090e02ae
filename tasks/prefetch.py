"""An iterator that a thread of its own runs ahead of its consumer.

Pipelines are composed of it: every stage that is wrapped works beside those after it. Decoders, encoders, OpenCV and
torch release Python's lock, so that stages really overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, TypeVar

from tasks.errors import InputError

T = TypeVar("T")


@contextmanager
def prefetched(source: Iterable[T], depth: int = 1) -> Iterator[Iterator[T]]:
    """Give an iterator over the items of ``source``, in their order, of which up to ``depth`` are made in advance.

    The item in the making counts, so no more than ``depth`` are alive beside the one that the consumer holds.
    An error of the source is raised, itself, where its item would have come. Leaving the context, for whatever reason,
    waits for an item in the making, closes the source and ends the thread.
    Raises InputError for a depth below 1.
    """
    if depth < 1:
        raise InputError(f"prefetched(depth={depth}): expected room for 1 item or more")
    ahead = _Ahead(source, depth)
    try:
        ahead.start()
        yield ahead
    finally:
        ahead.stop()


class _End:
    """The source has no more items: it came to its end, or to an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Ahead(Generic[T]):
    def __init__(self, source: Iterable[T], depth: int) -> None:
        self._source = source
        self._ready: SimpleQueue[T | _End] = SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._wanted = True
        self._end: _End | None = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self._end or self._ready.get()
        if isinstance(item, _End):
            self._end = _End()
            raise item.error or StopIteration
        self._room.release()
        return item

    def start(self) -> None:
        """Begin with the first item."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end, and wait for it."""
        self._wanted = False
        self._room.release()
        if self._thread.is_alive():  # not when Ctrl-C came while it was being started
            self._thread.join()

    def _run(self) -> None:
        try:
            self._make_all(iter(self._source))
        except BaseException as error:  # whatever it is, the consumer gets it
            self._ready.put(_End(error))
        else:
            self._ready.put(_End())

    def _make_all(self, items: Iterator[T]) -> None:
        try:
            while self._room.acquire() and self._wanted:
                try:
                    self._ready.put(next(items))  # without a name, by which it would live on while there is no room
                except StopIteration:
                    return
        finally:
            if isinstance(items, Generator):
                items.close()
