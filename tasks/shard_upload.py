"""Putting a finished shard on an object store, and seeing that it arrived.

What lies under the name already is written over: it has the same bytes, since the name holds their hash, and gets the
age of today, so that nobody takes it for what a killed run left behind (``tasks/vacuum.py``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tasks.errors import StorageError
from tasks.identity import hash_file
from tasks.storage import PART_BYTES, Location


def upload_shard(file: Path, sha256: str, target: Location) -> None:
    """Upload ``file`` and compare what the store says of it: its size, and its MD5 where the ETag is one.

    Where it says nothing, as with server-side encryption, the object is read back. Raises StorageError when the bytes
    are not those that were sent.
    """
    target.upload(file)
    filesystem, path = target.fsspec()
    try:
        filesystem.invalidate_cache(path)
        info = filesystem.info(path)
    except OSError as error:
        raise StorageError(f"can not look at {target.uri} after writing it: {error}") from error
    if not arrived(file, sha256, info, target):
        raise StorageError(
            f"{target.uri}: other bytes are there ({info.get('size')}, ETag {info.get('ETag')}) than the "
            f"{file.stat().st_size} that were sent; is the store sound? Run again to send them anew"
        )


def arrived(file: Path, sha256: str, info: dict[str, Any], target: Location) -> bool:
    """Whether what the store says of an object fits the file that was sent."""
    if info.get("size") != file.stat().st_size:
        return False
    return str(info.get("ETag", "")).strip('"') in etags(file) or _hash_of(target) == sha256


def etags(file: Path, part_bytes: int = PART_BYTES) -> set[str]:
    """ETags that S3 gives a file by its content: of one piece, and of pieces of ``part_bytes``.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: MD5 of the bytes, or of the MD5s of the parts.
    """
    whole, parts = hashlib.md5(usedforsecurity=False), []
    with file.open("rb") as stream:
        while piece := stream.read(part_bytes):
            whole.update(piece)
            parts.append(hashlib.md5(piece, usedforsecurity=False).digest())
    of_parts = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return {whole.hexdigest(), f"{of_parts}-{len(parts)}"}


def _hash_of(target: Location) -> str:
    with target.open_input() as stream:
        return hash_file(stream)
