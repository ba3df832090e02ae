"""Downloads that either arrive whole and are what was meant, or leave nothing behind."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from tasks.errors import WeightsError
from tasks.storage import fsspec_view

OnBytes = Callable[[int, int | None], None]
"""Told how many bytes have come, of how many where the source says so."""

_SILENCE_SECONDS = 30.0  # without a single byte; the slowest line still delivers some
_PIECE_BYTES = 1 << 20  # progress is told after each


def download(uri: str, path: Path, check: Callable[[Path], str], *, hint: str, on_bytes: OnBytes | None = None) -> str:
    """Copy ``uri`` (http, or what fsspec knows) to ``path`` in one step, after ``check`` has passed on the copy.

    Returns what ``check`` found, so that a large file is read once.

    hint: what to do instead, for the error. Raises WeightsError when the source can not be read to its end or the
    copy can not be written, and what ``check`` raises, with the hint.
    """
    with partial_of(path) as partial:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _opened(uri) as (source, size), partial.open("wb") as target:
                _copy(source, target, size, on_bytes)
            found = check(partial)
            partial.replace(path)
            return found
        except WeightsError as error:
            told = str(error).replace(str(partial), "the download")  # the partial file is gone when this is read
            raise WeightsError(f"{uri} is not what it should be: {told}. {hint}") from error
        except Exception as error:  # each of fsspec's drivers has errors of its own
            raise WeightsError(f"can not download {uri} ({type(error).__name__}: {error}). {hint}") from error


def publish(path: Path, content: bytes) -> None:
    """Write a small file in one step; raises WeightsError when it can not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_of(path) as partial:
            partial.write_bytes(content)
            partial.replace(path)
    except OSError as error:
        raise WeightsError(f"can not write {path}: {error}; expected a folder that you may write to") from error


def require_weights_bytes(file: Path) -> None:
    """Raise WeightsError unless a file begins as torch's or safetensors' files do, and not as an error page does."""
    with file.open("rb") as stream:
        start = stream.read(9)
    # A zip archive; a pickle; eight bytes of length and then JSON.
    if not (start.startswith((b"PK\x03\x04", b"\x80")) or start[8:] == b"{"):
        raise WeightsError(f"{file} begins with {start!r}, expected a file of torch or safetensors")


@contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` that nobody else uses, and leave no such file behind."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield partial
    finally:
        with suppress(OSError):  # it was renamed, or never made
            partial.unlink()


@contextmanager
def _opened(uri: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """Open a source; yield it with its size where that is known."""
    if uri.startswith(("http://", "https://")):
        with urllib.request.urlopen(uri, timeout=_SILENCE_SECONDS) as answer:
            length = answer.headers.get("Content-Length")
            yield answer, None if length is None else int(length)
        return
    filesystem, path = fsspec_view(uri)
    with filesystem.open(path, "rb") as source:
        yield source, getattr(source, "size", None)


def _copy(source: IO[bytes], target: IO[bytes], size: int | None, on_bytes: OnBytes | None) -> None:
    done = 0
    while piece := source.read(_PIECE_BYTES):
        target.write(piece)
        done += len(piece)
        if on_bytes is not None:
            on_bytes(done, size)
    if size is not None and done != size:
        raise EOFError(f"the connection ended after {done} of {size} bytes")
