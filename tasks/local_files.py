"""Files of this machine, written so that nobody ever sees half of one."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".partial"
"""Files being written are hidden (leading dot) and end in this; ``Location.list`` leaves them out."""


def write_whole(target: Path, write: Callable[[BinaryIO], object]) -> None:
    """Have ``write`` fill a file, synced, or leave nothing; replaces what is there."""
    with _complete(target, write) as temporary:
        temporary.replace(target)


def link_new(target: Path, write: Callable[[BinaryIO], object]) -> bool:
    """Give a file that ``write`` fills, synced, its name unless the name is taken: False then. A rename replaces."""
    with _complete(target, write) as temporary:
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
    return True


def copy_from(source: Path, stream: BinaryIO) -> None:
    """Copy a file into a stream."""
    with source.open("rb") as file:
        shutil.copyfileobj(file, stream, 8 << 20)


@contextmanager
def _complete(target: Path, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
    """Yield a synced file beside ``target`` that ``write`` filled; it is removed unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
