"""Shorthands of the decoding tests: a path to its clip, its frames, or the error that it is refused with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.decode import DecodeOptions, Frame, iterate_frames
from tasks.errors import FootageError
from tasks.footage import FootageItem, discover
from tests.video_files import frame_number


def clip_of(source: Path | str) -> FootageItem:
    (item,) = discover([str(source)]).items
    return item


def frames_of(source: Path | str, **options: Any) -> list[Frame]:
    return list(iterate_frames(clip_of(source), DecodeOptions(**options)))


def numbers_of(frames: list[Frame]) -> list[int]:
    return [frame_number(frame.image) for frame in frames]


def refusal_of(source: Path | str) -> FootageError:
    with pytest.raises(FootageError) as caught:
        frames_of(source)
    return caught.value


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
