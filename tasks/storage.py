"""Places: one module turns a URI into handles, so nothing else of the project knows where bytes lie.

A URI is a plain path, ``file://...``, ``s3://bucket/key`` or anything that fsspec has a driver for. Local
paths and S3 go through pyarrow's own file systems (faster than s3fs: benchmarks/object_storage.py), the others through
fsspec wrapped for pyarrow. Footage is read through fsspec, since video demuxers want Python file objects.

S3 is set up by the variables that every AWS client reads (``tasks/s3.py``).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs

from tasks import s3
from tasks.errors import StorageError
from tasks.handles import filesystem_and_path, fsspec_view, scheme_of, storage_options
from tasks.local_files import TEMPORARY_SUFFIX, copy_from, link_new, write_whole

_MAX_CONFLICTS = 20
PART_BYTES = 16 << 20  # of an upload; two at a time are in memory


@dataclass(frozen=True, kw_only=True)
class Location:
    """A file or folder by its URI; small, picklable and free to make. Build it with ``location``."""

    uri: str

    @property
    def is_local(self) -> bool:
        """Whether this is a path of the local machine."""
        return scheme_of(self.uri) == "file"

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The pyarrow file system that ``path`` belongs to."""
        return filesystem_and_path(self.uri)[0]

    @property
    def path(self) -> str:
        """The place inside ``filesystem``, such as ``bucket/key`` for S3."""
        return filesystem_and_path(self.uri)[1]

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

    @property
    def parent(self) -> Location:
        """The folder that this place lies in. Raises StorageError for a bucket or the root, which lie in none."""
        head, separator, name = self.uri.rpartition("/")
        if not separator or not name or head.endswith(":/"):
            raise StorageError(f"{self.uri} lies in no folder; expected a longer path")
        return Location(uri=head or "/")

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
        """The whole file, all of it as one writer left it. Raises StorageError when it can not be read."""
        with _explained("read", self.uri):
            if self.is_local:
                with self.filesystem.open_input_stream(self.path, compression=None) as stream:
                    return bytes(stream.read())
            # One request. pyarrow asks for the size first: of a file that is written again in between it gives a part,
            # or, when the new one is shorter, whatever lay in memory behind it (25.0).
            filesystem, path = self.fsspec()
            return bytes(filesystem.cat_file(path))

    def open_input(self) -> pa.NativeFile:
        """A seekable reader, for Parquet. The caller closes it."""
        with _explained("read", self.uri):
            return self.filesystem.open_input_file(self.path)

    def write_bytes(self, data: bytes) -> None:
        """Write the whole file or nothing: a rename locally (synced), one put on object stores."""
        with _explained("write", self.uri):
            if self.is_local:
                write_whole(self.local_path, lambda stream: stream.write(data))
            elif scheme_of(self.uri) == "s3":
                with self.filesystem.open_output_stream(self.path, compression=None) as stream:
                    stream.write(data)
            else:
                filesystem, path = self.fsspec()
                filesystem.pipe_file(path, data)

    def write_new(self, data: bytes) -> bool:
        """Write the whole file unless there is one, and say so: of all writers at once exactly one hears True.

        After an error, raised as StorageError, the file may be there: look before trying again.
        """
        if self.is_local:
            with _explained("write", self.uri):
                return link_new(self.local_path, lambda stream: stream.write(data))
        filesystem, path = self.fsspec()
        return self._unless_taken(lambda: filesystem.pipe_file(path, data, mode="create"))

    def upload(self, file: Path) -> None:
        """Put a file of this machine here, in place of what is here; it appears whole or not at all."""
        if self.is_local:
            with _explained("write", self.uri):
                write_whole(self.local_path, lambda stream: copy_from(file, stream))
            return
        filesystem, path = self.fsspec()
        with _explained("write", self.uri):
            filesystem.put_file(str(file), path, **self._pieces())

    def upload_new(self, file: Path) -> bool:
        """Put a file of this machine here unless there is one, and say so; it appears whole or not at all.

        Not for two contents under one name: some servers (Ceph 16) look at the condition only for files of one part.
        """
        if self.is_local:
            with _explained("write", self.uri):
                return link_new(self.local_path, lambda stream: copy_from(file, stream))
        filesystem, path = self.fsspec()
        return self._unless_taken(lambda: filesystem.put_file(str(file), path, mode="create", **self._pieces()))

    def list(self, *, recursive: bool = False) -> tuple[Location, ...]:
        """The files in this folder, sorted by URI; empty when there is no such folder."""
        return tuple(place for place, kind in self._children(recursive) if kind == pafs.FileType.File)

    def list_folders(self) -> tuple[Location, ...]:
        """The folders directly in this folder, sorted by URI; empty when there is no such folder."""
        return tuple(place for place, kind in self._children(False) if kind == pafs.FileType.Directory)

    def makedirs(self) -> None:
        """Make this folder and its parents; nothing to do on S3, which has no folders."""
        if scheme_of(self.uri) == "s3":
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

    def _pieces(self) -> dict[str, int]:
        return {"chunksize": PART_BYTES, "max_concurrency": 2} if scheme_of(self.uri) == "s3" else {}

    def _unless_taken(self, write: Callable[[], object]) -> bool:
        """Call ``write``; False when it says that there is a file already."""
        for _ in range(_MAX_CONFLICTS):
            try:
                with _explained("write", self.uri):
                    write()
                    return True
            except StorageError as error:
                if isinstance(error.__cause__, FileExistsError) or s3.error_code(error) == "PreconditionFailed":
                    return False
                if s3.error_code(error) != "ConditionalRequestConflict":  # Amazon's for "two at once: ask again"
                    raise
        raise StorageError(
            f"can not write {self.uri}: {_MAX_CONFLICTS} times others wrote at the same moment; run again"
        )

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
    if scheme_of(text) == "file":
        path = url2pathname(urlsplit(text).path) if text.startswith("file:") else text
        try:
            expanded = Path(path).expanduser()
        except RuntimeError as error:
            raise StorageError(f"{text}: no such user's home; expected a path, or ./{text} for a folder") from error
        return Location(uri=str(Path(os.path.abspath(expanded))))  # noqa: PTH100 - keeps symbolic links
    if urlsplit(text).password is not None:
        raise StorageError(f"a {scheme_of(text)}:// URI holds a password: put credentials into the environment instead")
    place = Location(uri=text.rstrip("/"))
    if scheme_of(text) != "s3":  # which is asked when it is used
        filesystem_and_path(place.uri)  # an unknown scheme is told here, not at first use
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


def _is_temporary(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


@contextlib.contextmanager
def _explained(action: str, uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise StorageError(f"can not {action} {uri}: {first_line}") from error


__all__ = ["Location", "fsspec_view", "location", "prove_writable", "storage_options"]
