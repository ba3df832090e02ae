"""Whether footage is still what it was when it was hashed, at the price of a look and not of reading it again.

A stamp is what a file system says of files, all of which changes when they are written: ETags of object stores and web
servers; size, inode and times of local files. Where it changed, or where there is none (members of archives, servers
that send no ETag), the content is hashed again, so that a new time alone refuses nothing.
"""

from __future__ import annotations

import hashlib
import os

from fsspec.implementations.local import LocalFileSystem

from tasks.errors import FootageError
from tasks.footage import FootageItem
from tasks.identity import files_of, read_content
from tasks.storage import fsspec_view

_CONTENT_MARKS = ("etag", "md5hash", "content-md5")  # of S3, Azure and web servers; of Google; of other web servers


def stamp_of(item: FootageItem, *, fresh: bool = False) -> str | None:
    """The stamp of a clip, over all its files in the case of a folder; None where nothing vouches for the content.

    fresh: ask anew what a listing has told before.
    """
    try:
        stamps = [(name, _stamp(uri, fresh)) for name, uri in files_of(item)]
    except Exception:  # each file system raises kinds of its own; whoever reads the footage tells what is wrong
        return None
    if any(stamp is None for _, stamp in stamps):
        return None
    return hashlib.sha256(repr(stamps).encode()).hexdigest()


def require_unchanged(item: FootageItem, video_id: str, stamp: str | None) -> None:
    """Raise FootageError("changed", ...) when a clip is not what ``video_id`` was computed of.

    stamp: what ``stamp_of`` returned before that. Called after the clip was decoded, this holds for all that was
    decoded. Raises FootageError("not_found", ...) when the clip is gone and can not be compared.
    """
    if stamp is not None and stamp_of(item, fresh=True) == stamp:
        return
    found = read_content(item).video_id
    if found != video_id:
        raise FootageError(
            "changed",
            f"{item.uri} changed since this ingest hashed it: it was {video_id[:16]}, now it is {found[:16]}; "
            "ingest again when nobody writes to it",
        )


def _stamp(uri: str, fresh: bool) -> str | None:
    filesystem, path = fsspec_view(uri)
    if isinstance(filesystem, LocalFileSystem):
        info = os.stat(path)  # noqa: PTH116 - of what a link leads to
        return f"{info.st_size} {info.st_ino} {info.st_mtime_ns} {info.st_ctime_ns}"
    if fresh:
        filesystem.invalidate_cache(path)
    told = {name.lower(): value for name, value in filesystem.info(path).items()}
    marks = [str(told[name]) for name in _CONTENT_MARKS if told.get(name)]
    return f"{told.get('size')} {marks}" if marks else None
