"""What a video container says of itself, read without a demuxer: its family, and whether its end is missing.

A file's name proves nothing, and demuxers guess: a text playlist named ``.mp4`` makes ffmpeg open the addresses in
it (CVE-2016-1898). So the first bytes decide which single demuxer may look at the file. Demuxers also take a file that
was cut off for a shorter one; the sizes that the containers write in front of their parts tell the difference.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO

from tasks.errors import FootageError

HEAD_BYTES = 16
_MP4_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
_MP4_NEEDED_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"moof"})
_MAX_PARTS = 64
"""Parts looked at: a fragmented mp4 has thousands, and its demuxer notices a missing end by itself."""
_EBML_ID, _SEGMENT_ID = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
_AVI_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # left by recorders that never came to write the size


def sniff_container(head: bytes) -> str:
    """Name of the only demuxer for a file that begins with ``head``: mov (mp4 too), matroska (webm too) or avi.

    Raises FootageError("not_video", ...) for anything else.
    """
    if head[4:8] in _MP4_FIRST_BOXES:
        return "mov"
    if head.startswith(_EBML_ID):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    got = "an empty file" if not head else f"a file that begins with {head[:8]!r}"
    raise FootageError("not_video", f"{got}; expected an mp4, mov, mkv, webm or avi container")


def check_complete(stream: BinaryIO, container: str) -> None:
    """Raise FootageError("corrupt", ...) when ``stream`` ends before the container says. Moves the position."""
    num_bytes = stream.seek(0, 2)
    promised = _PROMISED_BYTES[container](stream)
    if promised > num_bytes:
        raise FootageError("corrupt", f"the file was cut off: it has {num_bytes} of at least {promised} bytes")


def _promised_by_mp4(stream: BinaryIO) -> int:
    """End of the last needed box (ISO/IEC 14496-12, 4.2: 32-bit size, type, 64-bit size when the first is 1)."""
    start = end = 0
    for _ in range(_MAX_PARTS):
        header = _read_at(stream, start, 16)
        if len(header) < 8:
            break
        size, kind = struct.unpack(">I4s", header[:8])
        if size == 1 and len(header) == 16:
            (size,) = struct.unpack(">Q", header[8:])
        if size < 8:  # 0: up to the end of the file, whatever that is
            break
        start += size
        if kind in _MP4_NEEDED_BOXES:
            end = start
    return end


def _promised_by_avi(stream: BinaryIO) -> int:
    """End of the last RIFF chunk; files beyond 1 GiB have several (OpenDML)."""
    start = end = 0
    for _ in range(_MAX_PARTS):
        header = _read_at(stream, start, 8)
        if len(header) < 8 or not header.startswith(b"RIFF"):
            break
        (size,) = struct.unpack("<I", header[4:])
        if size in _AVI_UNKNOWN_SIZES:
            break
        end = start + 8 + size
        start = end + size % 2
    return end


def _promised_by_matroska(stream: BinaryIO) -> int:
    """End of the segment (RFC 8794): identifier, size in a variable number of bytes, all ones when unknown."""
    header_size, start = _ebml_size(stream, len(_EBML_ID))
    segment = start + (header_size or 0)
    if header_size is None or _read_at(stream, segment, 4) != _SEGMENT_ID:
        return 0
    size, start = _ebml_size(stream, segment + len(_SEGMENT_ID))
    return 0 if size is None else start + size


def _ebml_size(stream: BinaryIO, position: int) -> tuple[int | None, int]:
    """The size at ``position``, None when unknown, and where it ends."""
    data = _read_at(stream, position, 8)
    if not data or not data[0]:
        return None, position
    num_bytes = 9 - data[0].bit_length()
    mask = (1 << (7 * num_bytes)) - 1
    size = int.from_bytes(data[:num_bytes], "big") & mask
    return None if size == mask else size, position + num_bytes


def _read_at(stream: BinaryIO, position: int, num_bytes: int) -> bytes:
    stream.seek(position)
    return stream.read(num_bytes)


_PROMISED_BYTES: dict[str, Callable[[BinaryIO], int]] = {
    "mov": _promised_by_mp4,
    "avi": _promised_by_avi,
    "matroska": _promised_by_matroska,
}
