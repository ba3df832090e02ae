"""Footage: turns what a user names (files, folders, DAVIS roots, globs, URIs) into clips.

How a source is read, first match wins:

- a file: a video or a single image by its extension; one without a known extension is taken for a video, and
  decoding tells whether it is one;
- a folder with ``JPEGImages`` in it: a DAVIS root. Of several resolutions ``480p`` is taken, as benchmarks
  do, else the first; name ``JPEGImages/<resolution>`` to take another;
- a folder of videos, searched recursively; images beside videos are thumbnails and left out;
- a folder of images: one clip whose frames are its files in natural order;
- a glob: every match as above, except that a matched file must have a known extension.

A folder of frames below ``JPEGImages`` has its annotations at the same place below ``Annotations``, if any.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from tasks.errors import FootageError, InputError, RejectionReason, StorageError
from tasks.footage_files import (
    IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    base_name,
    child_uri,
    extension,
    is_web,
    list_folder,
    natural_key,
    storable,
)
from tasks.settings import Settings
from tasks.storage import fsspec_view, location

FootageKind = Literal["video", "frames", "image"]

DAVIS_FRAMES, DAVIS_ANNOTATIONS, DAVIS_RESOLUTION = "JPEGImages", "Annotations", "480p"
MAX_CLIP_NAME_BYTES = 120
"""File systems allow 255 bytes for a name; this leaves room for what is put around it."""


@dataclass(frozen=True, kw_only=True)
class FootageItem:
    """One clip to be decoded.

    uri: absolute path or URI of a video file, an image file, or a folder of frames.
    clip: name that is unique in its discovery and safe as a file name.
    annotation_uri: folder of masks named like the frames, if there is one.
    within: folder that links of the clip may not lead out of; None lets them lead anywhere.
    """

    uri: str
    clip: str
    kind: FootageKind
    annotation_uri: str | None = None
    within: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A source that gave no clip, and why."""

    source: str
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What sources hold: clips in the order of the sources (naturally inside one), and refused sources."""

    items: tuple[FootageItem, ...]
    rejections: tuple[Rejection, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Found:
    uri: str
    kind: FootageKind
    annotation_uri: str | None = None
    within: str | None = None


def discover(sources: Sequence[str], *, follow_links: bool | None = None) -> Discovery:
    """Find the clips that ``sources`` name; each clip once, however often it is named.

    follow_links: whether links in a folder may lead out of the source; None asks the settings of this process. What a
    source itself is a link to is the source. A source that leads nowhere becomes a rejection, and so does a folder
    inside one that can not be listed, and what is no file. Raises InputError when no source gives a clip.
    """
    follow_links = Settings().decode.follow_links if follow_links is None else follow_links
    if not sources:
        raise InputError("no sources given: expected videos, folders, globs or URIs")
    found: dict[str, _Found] = {}
    rejections: list[Rejection] = []
    for source in sources:
        try:
            for part in _expand(str(source), follow_links):
                if isinstance(part, Rejection):
                    rejections.append(part)
                else:
                    found.setdefault(part.uri, part)
        except FootageError as error:
            rejections.append(Rejection(source=storable(str(source)), reason=error.reason, detail=error.detail))
    if not found:
        details = "; ".join(rejection.detail for rejection in rejections[:_REFUSALS_TOLD])
        more = f"; and {len(rejections) - _REFUSALS_TOLD} more" if len(rejections) > _REFUSALS_TOLD else ""
        raise InputError(f"no footage found: {details}{more}. Expected {_EXPECTED}")
    names = clip_names(list(found))
    items = tuple(
        FootageItem(
            uri=clip.uri,
            clip=names[clip.uri],
            kind=clip.kind,
            annotation_uri=clip.annotation_uri,
            within=clip.within,
        )
        for clip in found.values()
    )
    return Discovery(items=items, rejections=tuple(rejections))


def source_uri(source: str) -> str:
    """One spelling of a source, absolute, so that a clip named twice is one clip. Raises StorageError for no driver."""
    uri = location(source).uri if "::" not in source else source
    return uri if is_web(uri) else child_uri(uri, fsspec_view(uri)[1])


def clip_names(uris: Sequence[str]) -> dict[str, str]:
    """Name every URI: its stem, where stems collide after its folder's name, else with a hash of the URI.

    Depends on the set of URIs only, not on their order. Names that differ only in case count as equal.
    """
    names = {uri: _safe(_stem(uri)) for uri in uris}
    for uri in _colliding(names):
        names[uri] = _safe(f"{PurePosixPath(uri).parent.name}_{_stem(uri)}")
    for uri in _colliding(names):
        names[uri] = f"{_safe(_stem(uri))}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
    return names


_REFUSALS_TOLD = 3  # of as many files as a folder has
_EXPECTED = (
    f"videos ({', '.join(sorted(VIDEO_EXTENSIONS))}), folders of videos, folders of frames "
    f"({', '.join(sorted(IMAGE_EXTENSIONS))}), a DAVIS root, a glob or an fsspec URI"
)


def _expand(source: str, follow_links: bool) -> list[_Found | Rejection]:
    if source != storable(source):
        raise FootageError("forbidden", f"the name {source} is no text in UTF-8; rename it")
    try:
        uri = source_uri(source)
        filesystem, path = fsspec_view(uri)
        filesystem.invalidate_cache()  # a long-lived process must see what arrived since its last listing
        if is_web(uri):
            return [_from_web(uri)]
        if filesystem.exists(path):
            if not filesystem.isdir(path):
                return [_from_file(uri)]
            return _from_folder(uri, source, None if follow_links else _dataset_root(uri))
        if any(wildcard in path for wildcard in "*?["):
            matches = [str(match) for match in filesystem.glob(path)]
            return _from_glob(uri, matches, None if follow_links else _dataset_root(_before_wildcards(uri)))
    except (OSError, StorageError) as error:
        raise FootageError("not_found", f"can not read {source}: {error}") from error
    raise FootageError("not_found", f"nothing at {uri}")


def _from_web(uri: str) -> _Found:
    filesystem, path = fsspec_view(uri)
    filesystem.info(path)  # FileNotFoundError when the server has no such page
    return _from_file(uri)


def _from_file(uri: str, within: str | None = None) -> _Found:
    return _Found(uri=uri, kind="image" if extension(uri) in IMAGE_EXTENSIONS else "video", within=within)


def _from_folder(uri: str, source: str, within: str | None) -> list[_Found | Rejection]:
    found = list(_walk(uri, frozenset(), within))
    if not found:
        raise FootageError("not_found", f"the folder {source} holds no videos and no images")
    return found


def _dataset_root(uri: str) -> str:
    """The folder that links may not lead out of: annotations lie beside the frames that a source may name."""
    return f"{uri}/".partition(f"/{DAVIS_FRAMES}/")[0].rstrip("/") or "/"


def _before_wildcards(uri: str) -> str:
    """The folder that a pattern starts from."""
    parts = uri.split("/")
    first = next(index for index, part in enumerate(parts) if any(wildcard in part for wildcard in "*?["))
    return "/".join(parts[:first]) or "/"


def _from_glob(uri: str, matches: list[str], within: str | None) -> list[_Found | Rejection]:
    filesystem, _ = fsspec_view(uri)
    found: list[_Found | Rejection] = []
    for path in sorted(matches, key=natural_key):
        match = child_uri(uri, path)
        if filesystem.isdir(path):
            found += _walk_inside(match, frozenset(), within)
        elif extension(match) in VIDEO_EXTENSIONS | IMAGE_EXTENSIONS:
            found.append(_from_file(match, within))
    if not found:
        raise FootageError("not_found", f"no footage matches {uri} ({len(matches)} other files do)")
    return found


def _walk(uri: str, parents: frozenset[str], within: str | None) -> Iterator[_Found | Rejection]:
    real = os.path.realpath(uri)
    if real in parents:  # a symbolic link to one of its own parents
        return
    listing = list_folder(uri, within)
    by_name = {base_name(folder): folder for folder in listing.folders}
    if DAVIS_FRAMES in by_name:
        yield from _walk(_davis_frames(by_name[DAVIS_FRAMES], within), parents | {real}, within)
        return
    is_clip = bool(listing.images) and not listing.videos
    for entry in listing.refused:
        if not (is_clip and extension(entry.uri) in IMAGE_EXTENSIONS):  # those refuse their clip, when it is hashed
            yield Rejection(source=entry.uri, reason="forbidden", detail=entry.detail)
    if listing.videos:
        yield from (_Found(uri=video, kind="video", within=within) for video in listing.videos)
    elif listing.images:
        yield _Found(uri=uri, kind="frames", annotation_uri=_annotations_beside(uri, within), within=within)
    for folder in listing.folders:
        yield from _walk_inside(folder, parents | {real}, within)


def _walk_inside(uri: str, parents: frozenset[str], within: str | None) -> Iterator[_Found | Rejection]:
    """Walk one folder of several: when it can not be listed, as ``lost+found``, those beside it still count."""
    try:
        yield from _walk(uri, parents, within)
    except FootageError as error:
        yield Rejection(source=uri, reason=error.reason, detail=error.detail)


def _davis_frames(uri: str, within: str | None) -> str:
    """The folder of sequences in ``JPEGImages``: one resolution, or itself where there are no resolutions."""
    resolutions = [folder for folder in list_folder(uri, within).folders if list_folder(folder, within).folders]
    preferred = [folder for folder in resolutions if base_name(folder) == DAVIS_RESOLUTION]
    return (preferred or resolutions or [uri])[0]


def _annotations_beside(uri: str, within: str | None) -> str | None:
    head, frames, rest = uri.rpartition(f"/{DAVIS_FRAMES}/")
    if not frames:
        return None
    candidate = f"{head}/{DAVIS_ANNOTATIONS}/{rest}"
    filesystem, path = fsspec_view(candidate)
    if not filesystem.isdir(path):
        return None
    listing = list_folder(candidate, within)
    return candidate if listing.images or listing.refused else None  # what is refused is told when it is read


def _stem(uri: str) -> str:
    name = base_name(uri)
    return PurePosixPath(name).stem if extension(uri) in VIDEO_EXTENSIONS | IMAGE_EXTENSIONS else name


def _safe(name: str) -> str:
    """Letters and digits of any script, ``-``, ``_`` and inner dots; anything else becomes ``_``."""
    cleaned = re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", name)).strip("._-")
    return cleaned.encode()[:MAX_CLIP_NAME_BYTES].decode(errors="ignore") or "clip"


def _colliding(names: dict[str, str]) -> list[str]:
    counts = Counter(name.casefold() for name in names.values())
    return [uri for uri, name in names.items() if counts[name.casefold()] > 1]
