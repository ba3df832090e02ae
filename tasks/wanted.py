"""From sources to footage with an identity: found by name, then read once to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tasks.dead_letters import Refusal
from tasks.errors import FootageError
from tasks.footage import FootageItem, discover
from tasks.footage_stamp import stamp_of
from tasks.identity import read_content
from tasks.ingest_plan import WantedVideo

_THREADS = 8
"""Files read at once, with a MiB of memory each: storage answers several as fast as one, and hashing frees the lock."""

_CHUNK_ITEMS = 256  # a future for each of a million videos would take a gigabyte

HashProgress = Callable[[int, int], None]
"""Called with the number of videos read and of all."""


def wanted_videos(
    sources: Sequence[str], on_progress: HashProgress | None = None
) -> tuple[tuple[WantedVideo, ...], tuple[Refusal, ...]]:
    """Find the footage that ``sources`` name and hash it; also tell what was out of reach.

    Raises InputError when no source leads to any footage.
    """
    found = discover(sources)
    refusals = [
        Refusal(source=rejection.source, stage="discover", reason=rejection.reason, detail=rejection.detail)
        for rejection in found.rejections
    ]
    wanted = []
    for num_done, result in enumerate(_identified(found.items), start=1):
        if isinstance(result, WantedVideo):
            wanted.append(result)
        else:
            refusals.append(result)
        if on_progress:
            on_progress(num_done, len(found.items))
    return tuple(wanted), tuple(refusals)


def _identified(items: Sequence[FootageItem]) -> Iterator[WantedVideo | Refusal]:
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(items), _CHUNK_ITEMS):
            yield from threads.map(_identify, items[start : start + _CHUNK_ITEMS])


def _identify(item: FootageItem) -> WantedVideo | Refusal:
    stamp = stamp_of(item)  # first: what changes while it is hashed is another than this
    try:
        content = read_content(item)
    except FootageError as error:
        return Refusal(source=item.uri, stage="hash", reason=error.reason, detail=error.detail)
    return WantedVideo(item=item, video_id=content.video_id, num_bytes=content.num_bytes, stamp=stamp)
