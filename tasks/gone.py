"""Stored videos whose source is gone: which sources are looked for, and what counts as gone.

Removing rows because a disk was not mounted would be a disaster, so a video counts as gone only when all of these hold:

- its source lies under a given folder, glob or archive that led to some footage in this run: an empty mount point and a
  mistyped bucket lead to none;
- nothing between that and the source was refused: a folder that could not be listed says nothing about what is in it;
- the source was looked for and the storage answered that it is not there. No answer leaves it in place.

The same look tells a renamed video, whose old source is gone, from a copy, whose original is still there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from fsspec.utils import glob_translate

from tasks.errors import FootageError, StorageError
from tasks.footage import source_uri
from tasks.ingest_plan import WantedVideo
from tasks.snapshot import StoredVideo
from tasks.storage import fsspec_view

_WILDCARDS = frozenset("*?[")
_THREADS = 16  # each waits for one answer of the storage


@dataclass(frozen=True, kw_only=True)
class GivenSource:
    """A source that the user named, as ``source_uri`` spells it. is_glob: its wildcards are wildcards."""

    uri: str
    is_glob: bool = False

    def covers(self, source: str) -> bool:
        """Whether ``source`` is this one, lies in this folder or archive, or in what this glob matches."""
        inner, _, archive = source.partition("::")
        own, _, own_archive = self.uri.partition("::")
        if archive != own_archive:
            return False
        if not self.is_glob:
            return inner == own or inner.startswith(f"{own.rstrip('/')}/")
        return any(self._matches(part) for part in _self_and_parents(inner))

    @cached_property
    def _matches(self) -> Callable[[str], object]:
        return re.compile(glob_translate(self.uri.partition("::")[0])).fullmatch


def sources_to_look_for(
    wanted: Sequence[WantedVideo],
    present: Iterable[StoredVideo],
    given: Sequence[GivenSource],
    refused: Collection[str],
) -> tuple[str, ...]:
    """Decide which sources of stored videos to look for: of bytes that were found elsewhere, and of what was not found.

    refused: sources that could not be read, spelled like ``given``.
    """
    found = {video.item.uri for video in wanted}
    wanted_ids = {video.video_id for video in wanted}
    fruitful = [root for root in given if any(root.covers(uri) and uri != root.uri for uri in found)]
    silent = frozenset(refused)

    def is_covered(source: str) -> bool:
        return any(root.covers(source) for root in fruitful) and silent.isdisjoint(_self_and_parents(source))

    return tuple(
        dict.fromkeys(
            video.source
            for video in present
            if video.source not in found and (video.video_id in wanted_ids or is_covered(video.source))
        )
    )


def given_sources(sources: Iterable[str]) -> tuple[GivenSource, ...]:
    """Spell what the user named as footage is spelled; leave out what has no driver."""
    given = []
    for source in sources:
        try:
            uri = source_uri(str(source))
            given.append(GivenSource(uri=uri, is_glob=bool(_WILDCARDS & set(uri)) and _is_missing(uri)))
        except (FootageError, StorageError):  # discovery has said so
            continue
    return tuple(given)


def missing_sources(sources: Sequence[str]) -> frozenset[str]:
    """Look for each source; return those that the storage says are not there. One it can not tell is not missing."""
    with ThreadPoolExecutor(_THREADS) as threads:
        missing = threads.map(_is_missing, sources)
        return frozenset(source for source, gone in zip(sources, missing, strict=True) if gone)


def _self_and_parents(uri: str) -> tuple[str, ...]:
    head, separator, path = uri.rpartition("://")
    place = PurePosixPath(path)
    return tuple(f"{head}{separator}{part}" for part in (place, *place.parents))


def _is_missing(source: str) -> bool:
    try:
        filesystem, path = fsspec_view(source)
        filesystem.info(path)
    except FileNotFoundError:
        return True
    except (OSError, StorageError, ValueError, KeyError):  # no permission, no network, no such archive
        return False
    return False
