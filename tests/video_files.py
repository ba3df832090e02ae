"""Real video files, small and made on the spot with PyAV: every container, rotation, uneven timing, and damage.

Frame ``i`` is grey of level ``20 + 4 i``, so that a test can tell which frame it got (``frame_number``), with a red
block in its top left corner, so that a test can tell how it was turned (``red_corner``).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".avi": "mpeg4"}
_MILLISECONDS = Fraction(1, 1000)


def numbered_frames(num_frames: int, width: int = 64, height: int = 48) -> list[NDArray[np.uint8]]:
    """RGB frames [height, width, 3] whose grey level is their number; at most 58."""
    frames = []
    for number in range(num_frames):
        frame = np.full((height, width, 3), 20 + 4 * number, np.uint8)
        frame[: height // 3, : width // 3] = (230, 20, 20)
        frames.append(frame)
    return frames


def frame_number(image: NDArray[np.uint8]) -> int:
    """Which of ``numbered_frames`` this is, however turned or scaled: the level in the middle tells."""
    height, width = image.shape[:2]
    middle = image[height * 4 // 9 : height * 5 // 9, width * 4 // 9 : width * 5 // 9]
    return round((float(np.median(middle)) - 20) / 4)


def red_corner(image: NDArray[np.uint8]) -> str:
    """Where the red block is: top left, top right, bottom left or bottom right."""
    height, width = image.shape[:2]
    corners = {
        "top left": image[height // 8, width // 8],
        "top right": image[height // 8, -width // 8],
        "bottom left": image[-height // 8, width // 8],
        "bottom right": image[-height // 8, -width // 8],
    }
    return max(corners, key=lambda name: float(corners[name][0]) - float(corners[name][1]))


def write_video(
    path: Path,
    frames: Sequence[NDArray[np.uint8]] | None = None,
    *,
    frame_rate: int = 30,
    times_ms: Sequence[int] | None = None,
    rotation_degrees: int = 0,
    audio_seconds: float = 0.0,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode frames with the usual codec of the extension; ``times_ms`` gives every frame its own time."""
    frames = numbered_frames(10) if frames is None else frames
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(CODECS[path.suffix], rate=frame_rate)
        stream.width, stream.height = width, height
        is_odd = width % 2 or height % 2
        stream.pix_fmt = "yuv444p" if is_odd and CODECS[path.suffix] == "libx264" else "yuv420p"
        stream.options = {"crf": "10"} | (codec_options or {}) if path.suffix != ".avi" else {"b": "2M"}
        if times_ms is not None:
            stream.codec_context.time_base = _MILLISECONDS
        if rotation_degrees:
            stream.set_display_rotation(rotation_degrees)
        sound = container.add_stream("aac", rate=16000) if audio_seconds else None
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], _MILLISECONDS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _encode_silence(container, sound, audio_seconds)
    return path


def repeat_video(source: Path, target: Path, times: int) -> Path:
    """The packets of ``source`` over and over: an hour of video in seconds, since nothing is encoded again."""
    with av.open(str(source)) as recorded, av.open(str(target), "w") as container:
        stream = recorded.streams.video[0]
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in recorded.demux(stream) if p.dts is not None]
        length = max(pts for _, pts, _, _ in packets) + packets[0][3] * stream.duration // stream.frames
        copy = container.add_stream_from_template(stream)
        for number in range(times):
            for data, pts, dts, is_keyframe in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = copy, stream.time_base, is_keyframe
                packet.pts, packet.dts = pts + number * length, dts + number * length
                container.mux(packet)
    return target


def write_audio(path: Path, seconds: float = 0.5) -> Path:
    """A container that holds sound only."""
    with av.open(str(path), "w") as container:
        _encode_silence(container, container.add_stream("aac", rate=16000), seconds)
    return path


def write_audio_with_cover(path: Path) -> Path:
    """Sound with a cover picture, as music players store it: its video stream is no video."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_frames(1)[0], format="rgb24")))
        container.mux(cover.encode())
        _encode_silence(container, sound, 0.5)
    return path


def cut_off(source: Path, target: Path, fraction: float = 0.6) -> Path:
    """The first part of a file, as an interrupted copy leaves it."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


def damage(source: Path, target: Path, num_bytes: int = 800) -> Path:
    """The file with zeros in its middle, as a bad disk leaves it."""
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + num_bytes] = bytes(num_bytes)
    target.write_bytes(data)
    return target


def _encode_silence(container: Any, stream: Any, seconds: float) -> None:
    samples = np.zeros((1, int(16000 * seconds)), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 16000, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
