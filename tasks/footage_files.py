"""Files of footage: kinds by extension, natural order, listing and opening through fsspec.

Whatever goes wrong here is a ``FootageError``, since it concerns one piece of footage and not the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from tasks.errors import FootageError
from tasks.storage import fsspec_view

VIDEO_EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

_FILESYSTEMS: WeakKeyDictionary[BinaryIO, Any] = WeakKeyDictionary()
"""Keeps the file system of an open file alive: that of an archive closes the archive when it goes."""


@dataclass(frozen=True, kw_only=True)
class FolderListing:
    """What lies directly in a folder, as URIs in natural order; links are followed, hidden names left out."""

    folders: tuple[str, ...]
    videos: tuple[str, ...]
    images: tuple[str, ...]


def base_name(uri: str) -> str:
    """File name at the end of a path or URI, without the query of a web address."""
    first = uri.partition("::")[0]
    return PurePosixPath(urlsplit(first).path if is_web(first) else first).name


def extension(uri: str) -> str:
    """Lower-case extension with its dot."""
    return PurePosixPath(base_name(uri)).suffix.lower()


def is_web(uri: str) -> bool:
    """Whether ``uri`` is a web address: it can not be listed, and ``?`` in it is no wildcard."""
    return uri.startswith(("http://", "https://"))


def natural_key(uri: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", uri)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part)


def child_uri(uri: str, path: str) -> str:
    """URI of ``path``, which the file system of ``uri`` listed; keeps chains such as ``zip://a::s3://b``."""
    first, chain, rest = uri.partition("::")
    if chain:
        return f"{first.partition('://')[0]}://{path.lstrip('/')}::{rest}"
    filesystem, _ = fsspec_view(uri)
    protocols = filesystem.protocol if isinstance(filesystem.protocol, tuple | list) else (filesystem.protocol,)
    return path if "file" in protocols else str(filesystem.unstrip_protocol(path))


def list_folder(uri: str) -> FolderListing:
    """List one folder. Raises FootageError("not_found", ...) when it can not be listed."""
    try:
        filesystem, path = fsspec_view(uri)
        entries = filesystem.ls(path, detail=True)
    except Exception as error:  # each file system raises kinds of its own: botocore's, aiohttp's
        raise FootageError("not_found", f"can not list {uri}: {error}") from error
    folders, videos, images = [], [], []
    for entry in entries:
        child = child_uri(uri, str(entry["name"]).rstrip("/"))
        if base_name(child).startswith(".") or str(entry["name"]).strip("/") == path.strip("/"):
            continue
        is_link = bool(entry.get("islink"))  # fsspec's type of a link is "other", whatever it leads to
        if entry["type"] == "directory" or (is_link and filesystem.isdir(entry["name"])):
            folders.append(child)
        elif entry["type"] == "other" and not is_link:
            continue  # a named pipe or a socket: opening one would wait for ever
        elif extension(child) in VIDEO_EXTENSIONS:
            videos.append(child)
        elif extension(child) in IMAGE_EXTENSIONS:
            images.append(child)
    return FolderListing(folders=_ordered(folders), videos=_ordered(videos), images=_ordered(images))


def list_images(uri: str) -> tuple[str, ...]:
    """URIs of a folder's images in natural order. Raises FootageError("not_found", ...) when it has none."""
    images = list_folder(uri).images
    if not images:
        expected = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise FootageError("not_found", f"no images in {uri}: expected files ending in {expected}")
    return images


def open_footage(uri: str) -> BinaryIO:
    """Open a file for reading, seekable. Raises FootageError("not_found", ...) when it can not be opened."""
    try:
        filesystem, path = fsspec_view(uri)
        stream: BinaryIO = filesystem.open(path, "rb")
    except Exception as error:  # as above; KeyError for no such member of an archive
        raise FootageError("not_found", f"can not open {uri}: {error}") from error
    _FILESYSTEMS[stream] = filesystem
    return stream


def _ordered(uris: list[str]) -> tuple[str, ...]:
    return tuple(sorted(uris, key=natural_key))
