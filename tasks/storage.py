"""Places: one module turns a URI into handles, so nothing else of the project knows where bytes lie.

A URI is a plain path, ``file://...``, ``s3://bucket/key`` or anything that fsspec has a driver for. Local
paths and S3 go through pyarrow's own file systems (measured faster than s3fs for Parquet), the others through
fsspec wrapped for pyarrow. Footage is read through fsspec, since video demuxers want Python file objects.

S3 is set up by the variables that every AWS client reads: ``AWS_ENDPOINT_URL``, ``AWS_REGION`` and those for
credentials, which are only ever taken from the environment, so that no URI, log or error holds one.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs

from tasks.errors import StorageError

TEMPORARY_SUFFIX = ".partial"
"""Files being written locally are hidden (leading dot) and end in this; ``Location.list`` leaves them out."""

_LOCAL = pafs.LocalFileSystem()


@dataclass(frozen=True, kw_only=True)
class Location:
    """A file or folder by its URI; small, picklable and free to make. Build it with ``location``."""

    uri: str

    @property
    def is_local(self) -> bool:
        """Whether this is a path of the local machine."""
        return _scheme(self.uri) == "file"

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The pyarrow file system that ``path`` belongs to."""
        return _filesystem_and_path(self.uri)[0]

    @property
    def path(self) -> str:
        """The place inside ``filesystem``, such as ``bucket/key`` for S3."""
        return _filesystem_and_path(self.uri)[1]

    @property
    def local_path(self) -> Path:
        """The path on this machine. Raises StorageError for a remote place."""
        if not self.is_local:
            raise StorageError(f"{self.uri} is not on this machine; expected a local path")
        return Path(self.uri)

    @property
    def name(self) -> str:
        """Last part of the URI."""
        return PurePosixPath(urlsplit(self.uri).path if "://" in self.uri else self.uri).name

    def __truediv__(self, relative: str) -> Location:
        """Join ``relative``, which may have several parts but can not lead out of this place."""
        parts = relative.split("/")
        if relative.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise StorageError(f"{self.uri} / {relative!r}: expected a relative path without '..' or empty parts")
        return Location(uri=f"{self.uri.rstrip('/')}/{relative}")

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return self._type() != pafs.FileType.NotFound

    def is_folder(self) -> bool:
        """Whether a folder is there (on object stores: some key below it)."""
        return self._type() == pafs.FileType.Directory

    def size(self) -> int:
        """Bytes of the file. Raises StorageError when there is none."""
        with _explained("look at", self.uri):
            info = self.filesystem.get_file_info(self.path)
        if not info.is_file:
            raise StorageError(f"can not tell the size of {self.uri}: no file there")
        return int(info.size)

    def read_bytes(self) -> bytes:
        """The whole file. Raises StorageError when it can not be read."""
        with (
            _explained("read", self.uri),
            self.filesystem.open_input_stream(self.path, compression=None) as stream,
        ):
            return bytes(stream.read())

    def open_input(self) -> pa.NativeFile:
        """A seekable reader, for Parquet. The caller closes it."""
        with _explained("read", self.uri):
            return self.filesystem.open_input_file(self.path)

    def write_bytes(self, data: bytes) -> None:
        """Write the whole file or nothing: a rename locally (synced), one put on object stores."""
        with _explained("write", self.uri):
            if self.is_local:
                _write_local(Path(self.path), data)
                return
            with self.filesystem.open_output_stream(self.path, compression=None) as stream:
                stream.write(data)

    def list(self, *, recursive: bool = False) -> tuple[Location, ...]:
        """The files in this folder, sorted by URI; empty when there is no such folder."""
        return tuple(place for place, kind in self._children(recursive) if kind == pafs.FileType.File)

    def list_folders(self) -> tuple[Location, ...]:
        """The folders directly in this folder, sorted by URI; empty when there is no such folder."""
        return tuple(place for place, kind in self._children(False) if kind == pafs.FileType.Directory)

    def makedirs(self) -> None:
        """Make this folder and its parents; nothing to do on S3, which has no folders."""
        if _scheme(self.uri) == "s3":
            return
        with _explained("make the folder", self.uri):
            self.filesystem.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Remove the file, or the folder with everything in it; a missing one is fine."""
        if not self.exists():
            return
        remove = self.filesystem.delete_dir if self.is_folder() else self.filesystem.delete_file
        with _explained("remove", self.uri):
            remove(self.path)

    def fsspec(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The same place for fsspec: its file system and the path in it."""
        return fsspec_view(self.uri)

    def _type(self) -> pafs.FileType:
        with _explained("look at", self.uri):
            return self.filesystem.get_file_info(self.path).type

    def _children(self, recursive: bool) -> Sequence[tuple[Location, pafs.FileType]]:
        root = self.path
        selector = pafs.FileSelector(root, recursive=recursive, allow_not_found=True)
        with _explained("list", self.uri):
            infos = self.filesystem.get_file_info(selector)
        found = []
        for info in infos:
            relative = info.path.lstrip("/").removeprefix(root.strip("/")).strip("/")
            if relative and not _is_temporary(relative):
                found.append((Location(uri=f"{self.uri.rstrip('/')}/{relative}"), info.type))
        return sorted(found, key=lambda pair: pair[0].uri)


def location(uri: str | Path) -> Location:
    """Make a Location of a path or URI; local ones become absolute.

    Raises StorageError when the URI is empty, its scheme has no driver here, or ``~name`` is no user.
    """
    text = str(uri)
    if not text.strip():
        raise StorageError("the place is empty: expected a path or a URI such as s3://bucket/folder")
    if _scheme(text) == "file":
        path = url2pathname(urlsplit(text).path) if text.startswith("file:") else text
        try:
            expanded = Path(path).expanduser()
        except RuntimeError as error:
            raise StorageError(f"{text}: no such user's home; expected a path, or ./{text} for a folder") from error
        return Location(uri=str(Path(os.path.abspath(expanded))))  # noqa: PTH100 - keeps symbolic links
    place = Location(uri=text.rstrip("/"))
    _filesystem_and_path(place.uri)  # an unknown scheme is told here, not at first use
    return place


def prove_writable(place: Location) -> None:
    """Write, read back and remove a small file, before hours of work depend on the place.

    Raises StorageError saying which of these failed, and what to look at.
    """
    probe = place / f".gwm_probe_{uuid.uuid4().hex}"
    step = "make the folder"
    try:
        place.makedirs()
        step = "write a file"
        probe.write_bytes(b"probe")
        step = "read the file back"
        if probe.read_bytes() != b"probe":
            raise StorageError("other bytes came back than were written")
        step = "remove the file"
        probe.delete()
    except StorageError as error:
        hint = "is it a folder that you may write to, on a disk with free space?"
        if not place.is_local:
            hint = "do the bucket, AWS_ENDPOINT_URL, AWS_REGION and the credentials in the environment fit?"
        raise StorageError(f"{place.uri} is not writable: could not {step}: {error}; {hint}") from error


def storage_options(uri: str | Path) -> dict[str, str]:
    """Options that deltalake needs to reach ``uri``; empty for local paths, never credentials."""
    if _scheme(str(uri)) != "s3":
        return {}
    options = {"aws_conditional_put": "etag"}  # safe concurrent commits by put-if-absent, without a lock table
    endpoint, region = _s3_environment(os.environ)
    if endpoint:
        options["AWS_ENDPOINT_URL"] = endpoint
        options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
    if region:
        options["AWS_REGION"] = region
    return options


def fsspec_view(uri: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of ``uri`` and the path in it.

    Raises StorageError when the scheme is unknown or its driver is not installed.
    """
    text = str(uri)
    arguments: dict[str, Any] = {}
    if _scheme(text) == "s3":
        endpoint, region = _s3_environment(os.environ)
        names = {"endpoint_url": endpoint, "region_name": region}
        arguments["client_kwargs"] = {name: value for name, value in names.items() if value}
    try:
        filesystem, path = fsspec.url_to_fs(text, **arguments)
    except (ValueError, ImportError) as error:
        known = "a path, file://, s3://, gs://, https:// or another scheme of fsspec"
        raise StorageError(f"{text}: no driver for this place ({error}); expected {known}") from error
    return filesystem, str(path)


def _scheme(uri: str) -> str:
    head, separator, _ = uri.partition("://")
    if uri.startswith("file:"):
        return "file"
    return head.lower() if separator and "/" not in head else "file"


def _s3_environment(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    return endpoint or None, environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None


def _filesystem_and_path(uri: str) -> tuple[pafs.FileSystem, str]:
    scheme = _scheme(uri)
    if scheme == "file":
        return _LOCAL, uri
    if scheme == "s3":
        return _s3_filesystem(*_s3_environment(os.environ)), uri.partition("://")[2]
    filesystem, path = fsspec_view(uri)
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


@lru_cache(maxsize=4)
def _s3_filesystem(endpoint: str | None, region: str | None) -> pafs.S3FileSystem:
    arguments: dict[str, Any] = {"allow_delayed_open": True}  # small files are one put, not a multipart upload
    if endpoint:
        parts = urlsplit(endpoint)
        arguments |= {
            "endpoint_override": parts.netloc,
            "scheme": parts.scheme,
            "region": region or "us-east-1",
        }
    elif region:
        arguments["region"] = region
    return pafs.S3FileSystem(**arguments)


def _is_temporary(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


def _write_local(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(action: str, uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise StorageError(f"can not {action} {uri}: {first_line}") from error
