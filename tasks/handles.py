"""What the libraries need to reach a URI: a pyarrow file system, an fsspec one, deltalake's options."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow.fs as pafs

from tasks import s3
from tasks.errors import StorageError

_LOCAL = pafs.LocalFileSystem()


def storage_options(uri: str | Path) -> dict[str, str]:
    """Options that deltalake needs to reach ``uri``; empty for local paths, never credentials."""
    return s3.delta_options(_bucket(str(uri))) if scheme_of(str(uri)) == "s3" else {}


def fsspec_view(uri: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of ``uri`` and the path in it.

    Raises StorageError when the scheme is unknown or its driver is not installed.
    """
    text = str(uri)
    arguments = s3.fsspec_arguments(_bucket(text)) if scheme_of(text) == "s3" else {}
    try:
        filesystem, path = fsspec.url_to_fs(text, **arguments)
    except (ValueError, ImportError) as error:
        known = "a path, file://, s3://, gs://, https:// or another scheme of fsspec"
        raise StorageError(f"{text}: no driver for this place ({error}); expected {known}") from error
    return filesystem, str(path)


def scheme_of(uri: str) -> str:
    """Lower-case scheme of a URI; ``file`` for a plain path."""
    head, separator, _ = uri.partition("://")
    if uri.startswith("file:"):
        return "file"
    return head.lower() if separator and "/" not in head else "file"


def _bucket(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


def filesystem_and_path(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system of ``uri`` and the path in it, as ``bucket/key``; raises StorageError."""
    scheme = scheme_of(uri)
    if scheme == "file":
        return _LOCAL, uri
    if scheme == "s3":
        return s3.arrow_filesystem(_bucket(uri)), uri.partition("://")[2]
    filesystem, path = fsspec_view(uri)
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path
