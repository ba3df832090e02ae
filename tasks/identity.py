"""Identity of a row: content x recipe. Neither names, places nor times take part.

``video_id`` says which footage (SHA-256 of its bytes), ``Recipe.hash`` says how rows were made of it. A plan
compares both with what a dataset holds, and can name every field of the recipe that changed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.errors import FootageError
from tasks.footage import FootageItem
from tasks.footage_files import base_name, list_images, open_footage

DEFAULT_JPEG_QUALITY = 95

_CHUNK_BYTES = 1 << 20

ShotDetection = Literal["auto", "on", "off"]
"""Benchmark sequences come as folders of frames and are single shots; recipes of schema version 1 say nothing: off."""


class Recipe(BaseModel):
    """Everything that decides what the rows of a video hold, given its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fps: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Frames per second kept; unset keeps every frame."
    )
    max_side: int | None = Field(default=None, ge=16, description="Longer side in pixels; unset keeps the size.")
    jpeg_quality: int = Field(
        default=DEFAULT_JPEG_QUALITY, ge=1, le=100, description="Of frames that are not JPEG files already."
    )
    gaps: tuple[int, ...] = Field(default=(1, -1, 2, -2), description="Frame gaps that optical flow is stored for.")
    flow_estimator: str = Field(default="dis", description="Name of the optical flow estimator.")
    flow_weights_sha256: str | None = Field(default=None, description="Of the estimator's weights, if it has any.")
    shots: ShotDetection = Field(
        default="off",
        description="Split footage at its cuts: auto splits video files and takes folders of frames as one shot each.",
    )
    schema_version: int = Field(ge=1, description="Version of the rows' layout and of the code that fills them.")

    @field_validator("gaps")
    @classmethod
    def _distinct_gaps(cls, gaps: tuple[int, ...]) -> tuple[int, ...]:
        if not gaps or 0 in gaps or len(set(gaps)) != len(gaps):
            raise ValueError(f"gaps={gaps}: expected distinct frame gaps other than 0, such as (1, -1, 2, -2)")
        # The order makes no difference to the rows, so it must make none to the hash: 1, -1, 2, -2, ...
        return tuple(sorted(gaps, key=lambda gap: (abs(gap), gap < 0)))

    def hash(self) -> str:
        """SHA-256 (64 hex digits) of the recipe as canonical JSON: sorted keys, no spaces."""
        return _hash_of(self)


@lru_cache(maxsize=256)  # asked several times a video, of few recipes
def _hash_of(recipe: Recipe) -> str:
    canonical = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def recipe_difference(first: Recipe, second: Recipe) -> list[str]:
    """Names of the fields that differ, in the order in which they are declared."""
    return [name for name in Recipe.model_fields if getattr(first, name) != getattr(second, name)]


@dataclass(frozen=True, kw_only=True)
class Content:
    """What footage consists of: its identity, and how many bytes that was computed over."""

    video_id: str
    num_bytes: int


def hash_bytes(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(stream: BinaryIO | io.IOBase) -> str:
    """SHA-256 of what is left in ``stream``, read a mebibyte at a time."""
    return _digest(stream)[0].hex()


def hash_frames(files: Iterable[tuple[str, BinaryIO | io.IOBase]]) -> Content:
    """SHA-256 over (name, content) of ``files`` sorted by name, so that neither order nor folder matters.

    Each file adds its name, a zero byte (which no name can hold) and the 32 bytes of its own SHA-256.
    """
    digests = sorted((name, *_digest(stream)) for name, stream in files)
    total = hashlib.sha256(b"".join(name.encode() + b"\0" + digest for name, digest, _ in digests)).hexdigest()
    return Content(video_id=total, num_bytes=sum(num_bytes for _, _, num_bytes in digests))


def video_id(item: FootageItem) -> str:
    """Identity of the footage; see ``read_content``."""
    return read_content(item).video_id


def read_content(item: FootageItem) -> Content:
    """Read the footage once: its identity is the SHA-256 of a file, or ``hash_frames`` of a folder.

    A video's id is what ``sha256sum`` prints. Annotations are part of what is stored of a folder, so they
    take part, named ``annotation/<file>``. Raises FootageError("not_found", ...) when the footage is gone or
    can not be read to its end.
    """
    try:
        return _content(item)
    except OSError as error:  # a disk or a server that fails under way
        raise FootageError("not_found", f"can not read {item.uri}: {error}") from error


def _content(item: FootageItem) -> Content:
    if item.kind != "frames":
        with open_footage(item.uri, item.within) as stream:
            digest, num_bytes = _digest(stream)
        return Content(video_id=digest.hex(), num_bytes=num_bytes)
    return hash_frames(_opened(files_of(item), item.within))


def files_of(item: FootageItem) -> list[tuple[str, str]]:
    """(name, URI) of all files that take part in the identity of a clip."""
    if item.kind != "frames":
        return [(base_name(item.uri), item.uri)]
    files = [(base_name(uri), uri) for uri in list_images(item.uri, item.within)]
    if item.annotation_uri is not None:
        files += [(f"annotation/{base_name(uri)}", uri) for uri in list_images(item.annotation_uri, item.within)]
    return files


def _opened(files: Iterable[tuple[str, str]], within: str | None) -> Iterable[tuple[str, BinaryIO]]:
    for name, uri in files:
        with open_footage(uri, within) as stream:
            yield name, stream


def _digest(stream: BinaryIO | io.IOBase) -> tuple[bytes, int]:
    digest, num_bytes = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
        num_bytes += len(chunk)
    return digest.digest(), num_bytes
