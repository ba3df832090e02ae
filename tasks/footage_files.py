"""Files of footage: kinds by extension, natural order, listing and opening through fsspec.

Whatever goes wrong here is a ``FootageError``, since it concerns one piece of footage and not the run.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from fsspec.implementations.local import LocalFileSystem

from tasks.errors import FootageError, printable
from tasks.storage import fsspec_view

VIDEO_EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

_FILESYSTEMS: WeakKeyDictionary[BinaryIO, Any] = WeakKeyDictionary()
"""Keeps the file system of an open file alive: that of an archive closes the archive when it goes."""


@dataclass(frozen=True, kw_only=True)
class RefusedEntry:
    """Something in a folder that will not be opened, and why; ``uri`` can be printed and stored."""

    uri: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class FolderListing:
    """What lies directly in a folder, as URIs in natural order; hidden names left out.

    refused: folders and files by their extensions that are not what they seem.
    """

    folders: tuple[str, ...]
    videos: tuple[str, ...]
    images: tuple[str, ...]
    refused: tuple[RefusedEntry, ...] = ()


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


def list_folder(uri: str, within: str | None = None) -> FolderListing:
    """List one folder.

    within: a folder that links in this one may not lead out of; None lets them lead anywhere. What does is refused,
    and so are pipes, devices and sockets, which could block a reader for ever, and names that are no text.
    Raises FootageError: "not_found" when it can not be listed, "forbidden" when it lies elsewhere itself.
    """
    try:
        filesystem, path = fsspec_view(uri)
        entries = filesystem.ls(path, detail=True)
    except Exception as error:  # each file system raises kinds of its own: botocore's, aiohttp's
        raise FootageError("not_found", f"can not list {uri}: {error}") from error
    is_local = _is_local(filesystem)
    if is_local and (why := _why_outside(os.path.realpath(path), uri, within)):
        raise FootageError("forbidden", why)
    folders: list[str] = []
    videos: list[str] = []
    images: list[str] = []
    refused: list[RefusedEntry] = []
    for entry in entries:
        child = child_uri(uri, str(entry["name"]).rstrip("/"))
        if base_name(child).startswith(".") or str(entry["name"]).strip("/") == path.strip("/"):
            continue
        # fsspec's type of a link is "other", whatever it leads to
        is_folder = entry["type"] == "directory" or (bool(entry.get("islink")) and filesystem.isdir(entry["name"]))
        kind = None if is_folder else extension(child)
        if not is_folder and kind not in VIDEO_EXTENSIONS | IMAGE_EXTENSIONS:
            continue
        if why := _why_refused(child, entry, within, is_local=is_local):
            refused.append(RefusedEntry(uri=storable(child), detail=printable(why)))
        elif is_folder:
            folders.append(child)
        else:
            (videos if kind in VIDEO_EXTENSIONS else images).append(child)
    return FolderListing(
        folders=_ordered(folders), videos=_ordered(videos), images=_ordered(images), refused=tuple(refused)
    )


def list_images(uri: str, within: str | None = None) -> tuple[str, ...]:
    """URIs of a folder's images in natural order.

    Raises FootageError: "not_found" when it has none, "forbidden" when one of them is refused (``list_folder``), since
    frames with one missing are other footage.
    """
    listing = list_folder(uri, within)
    for entry in listing.refused:
        if extension(entry.uri) in IMAGE_EXTENSIONS:
            raise FootageError("forbidden", entry.detail)
    if not listing.images:
        expected = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise FootageError("not_found", f"no images in {uri}: expected files ending in {expected}")
    return listing.images


def open_footage(uri: str, within: str | None = None) -> BinaryIO:
    """Open a file for reading, seekable.

    within: as in ``list_folder``, checked on what was opened. Raises FootageError: "not_found" when it can not be
    opened, "forbidden" when it is no file, or lies elsewhere.
    """
    try:
        filesystem, path = fsspec_view(uri)
        if _is_local(filesystem):
            return _open_local(path, within)
        stream: BinaryIO = filesystem.open(path, "rb")
    except FootageError:
        raise
    except Exception as error:  # as above; KeyError for no such member of an archive
        raise FootageError("not_found", f"can not open {uri}: {error}") from error
    _FILESYSTEMS[stream] = filesystem
    return stream


def storable(uri: str) -> str:
    """``uri`` with escapes for bytes of its name that are no UTF-8, which no table and no URI can hold."""
    return uri.encode("utf-8", "backslashreplace").decode()


def _open_local(path: str, within: str | None) -> BinaryIO:
    # Not blocking, since opening a pipe waits for its writer; of a file that changes nothing.
    stream = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
    opened = Path(f"/proc/self/fd/{stream.fileno()}")  # what is open, whatever the path leads to by now
    real = str(opened.readlink()) if opened.is_symlink() else os.path.realpath(path)
    why = _why_special(os.fstat(stream.fileno()).st_mode, path) or _why_outside(real, path, within)
    if why is not None:
        stream.close()
        raise FootageError("forbidden", why)
    return stream


def _why_refused(uri: str, entry: Mapping[str, Any], within: str | None, *, is_local: bool) -> str | None:
    """Why an entry of a folder, itself inside ``within``, is not opened; None when it may be."""
    if uri != storable(uri):
        return f"the name {uri} is no text in UTF-8; rename it"
    is_plain = entry["type"] in ("file", "directory") and not entry.get("islink")
    if is_plain or not is_local:
        return None
    try:
        mode = os.stat(uri).st_mode  # noqa: PTH116 - of what a link leads to
    except OSError:
        return None  # gone, or a link to nowhere: told when it is opened
    return _why_special(mode, uri) or _why_outside(os.path.realpath(uri), uri, within)


def _why_special(mode: int, uri: str) -> str | None:
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return f"{uri} is {kinds.get(stat.S_IFMT(mode), 'no file')}; expected a file"


def _why_outside(real: str, uri: str, within: str | None) -> str | None:
    if within is None or Path(real).is_relative_to(os.path.realpath(within)):
        return None
    return (
        f"{uri} leads to {real}, out of {within}; expected footage inside the folder that was named, "
        "or GWM_DECODE_FOLLOW_LINKS=true where its links are to be trusted"
    )


def _is_local(filesystem: Any) -> bool:
    return isinstance(filesystem, LocalFileSystem)


def _ordered(uris: list[str]) -> tuple[str, ...]:
    return tuple(sorted(uris, key=natural_key))
