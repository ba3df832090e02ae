"""Items made ahead: their order, their number, their errors, and that the thread ends."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tasks.errors import InputError
from tasks.prefetch import prefetched


class Item:
    """Something that can be seen to be freed."""

    def __init__(self, number: int) -> None:
        self.number = number


class Source:
    """Counts what was made and what is alive, and knows when it was closed and by which thread it was run."""

    def __init__(self, length: int, *, fails_at: int | None = None) -> None:
        self.length, self.fails_at = length, fails_at
        self.made = self.alive = self.most = 0
        self.closed = False
        self.threads: set[str] = set()

    def __iter__(self) -> Iterator[Item]:
        try:
            for number in range(self.length):
                self.threads.add(threading.current_thread().name)
                if number == self.fails_at:
                    raise OSError(f"item {number} is broken")
                yield self._make(number)
        finally:
            self.closed = True

    def _make(self, number: int) -> Item:
        item = Item(number)
        weakref.finalize(item, self._freed)
        self.made += 1
        self.alive += 1
        self.most = max(self.most, self.alive)
        return item

    def _freed(self) -> None:
        self.alive -= 1


def wait_until(condition: object) -> None:
    for _ in range(500):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.01)
    raise AssertionError("waited five seconds for nothing")


def prefetch_threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_all_items_come_in_order_from_another_thread(depth: int) -> None:
    source = Source(20)
    with prefetched(source, depth) as items:
        assert [item.number for item in items] == list(range(20))
        assert next(items, None) is None  # an iterator that ended stays at its end
    assert source.closed
    assert source.threads == {"prefetch"}
    assert prefetch_threads() == 0


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_is_made_than_there_is_room_for(depth: int) -> None:
    source = Source(50)
    with prefetched(source, depth) as items:
        wait_until(lambda: source.made == depth)
        time.sleep(0.05)
        assert source.made == depth
        for number in range(10):
            assert next(items).number == number
        del number
        gc.collect()
        wait_until(lambda: source.alive <= depth)
        for item in items:
            assert source.made - item.number - 1 <= depth
    assert source.most <= depth + 1  # those ahead, and the consumer's


def test_items_are_made_while_the_consumer_works() -> None:
    both_at_work = threading.Barrier(2, timeout=5)

    def source() -> Iterator[int]:
        yield 0
        both_at_work.wait()
        yield 1

    with prefetched(source()) as items:
        assert next(items) == 0
        both_at_work.wait()  # breaks unless the source runs meanwhile
        assert next(items) == 1


def test_an_error_comes_in_its_place_and_is_the_original() -> None:
    source = Source(9, fails_at=3)
    seen: list[int] = []
    with pytest.raises(OSError, match="item 3 is broken") as caught, prefetched(source, 4) as items:
        seen.extend(item.number for item in items)
    assert seen == [0, 1, 2]
    assert "_make_all" in [entry.name for entry in caught.traceback]  # the traceback leads to where it happened
    assert source.closed
    assert prefetch_threads() == 0


def test_a_source_that_can_not_be_iterated_is_the_consumers_error_too() -> None:
    with pytest.raises(TypeError, match="not iterable"), prefetched(3) as items:  # type: ignore[arg-type]
        next(items)


@pytest.mark.parametrize("error", [None, ValueError("enough")])
def test_a_consumer_that_stops_early_closes_the_source(error: ValueError | None) -> None:
    source = Source(1000)

    def consume() -> None:
        with prefetched(source, 2) as items:
            next(items)
            if error:
                raise error

    with pytest.raises(ValueError, match="enough") if error else nullcontext():
        consume()
    assert source.closed
    assert source.made <= 3
    assert prefetch_threads() == 0


def test_an_interrupt_reaches_a_consumer_that_waits() -> None:
    """Ctrl-C comes while an item is being made: the consumer gets it, then waits for that item only."""
    # Python's own way to take it, whatever a shell that started this, or a test before, left in its place
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    waiting, interrupted, closed = threading.Event(), threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        try:
            waiting.wait(timeout=5)
            os.kill(os.getpid(), signal.SIGINT)
            interrupted.wait(timeout=5)
            yield 0
            yield 1
        finally:
            closed.set()

    def consume() -> None:
        with prefetched(source()) as items:
            try:
                waiting.set()
                list(items)
            finally:
                interrupted.set()

    try:
        with pytest.raises(KeyboardInterrupt):
            consume()
    finally:
        signal.signal(signal.SIGINT, before)
    assert closed.is_set()
    assert prefetch_threads() == 0


def test_stages_compose_and_close_from_the_last_to_the_first() -> None:
    source = Source(1000)

    def doubled() -> Iterator[int]:
        with prefetched(source) as items:
            for item in items:
                yield 2 * item.number

    with prefetched(doubled()) as numbers:
        assert [next(numbers) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert source.closed
    assert prefetch_threads() == 0


def test_errors_pass_through_all_stages() -> None:
    def passed() -> Iterator[Item]:
        with prefetched(Source(5, fails_at=2)) as items:
            yield from items

    with pytest.raises(OSError, match="item 2 is broken"), prefetched(passed()) as items:
        list(items)


def test_a_depth_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="room for 1 item"), prefetched([1], 0):
        pass
