"""Files that the corpus is made of, written with PyAV and Pillow: no two of them hold the same bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.hostile import bytes_of
from tests.video_files import numbered_frames

NUM_FRAMES = 4


def different_frames(number: int, num_frames: int = NUM_FRAMES) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Frames unlike those of any other case, since equal bytes are ingested once."""
    frames = numbered_frames(num_frames)
    for frame in frames:
        for bit in range(8):  # blocks that no codec rounds away
            frame[-8:, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    return frames


def save(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def new_folder(root: Path, name: str) -> Path:
    path = root / name
    path.mkdir(parents=True)
    return path


def noise(num_frames: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(num_frames)]


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def encode(
    path: Path,
    frames: list[np.ndarray[Any, np.dtype[np.uint8]]],
    codec: str,
    pixel_format: str,
    options: dict[str, str] | None = None,
    times_ms: list[int] | None = None,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000 if times_ms else 30)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = pixel_format, options or {}
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = times_ms[number] if times_ms else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def changing_size(path: Path) -> Path:
    """Motion JPEG whose pictures grow half-way: each is a picture of its own, so the container does not notice."""
    small, large = numbered_frames(4), numbered_frames(4, 96, 64)
    packets = [jpeg(image) for image in (*small, *large)]
    return mux(path, "mjpeg", packets)


def bomb_in_video(path: Path, side: int) -> Path:
    """A stream of 64 x 48 by its header, whose pictures are PNG files of ``side`` x ``side``."""
    return mux(path, "png", [bytes_of.picture_bomb(side)] * 2)


def mux(path: Path, codec: str, packets: list[bytes]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
            packet.time_base = 1 / stream.average_rate
            container.mux(packet)
    return path


def with_attachment(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.add_attachment("evil.ttf", "application/x-truetype-font", b"not a font" * 99)
        for image in different_frames(23):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def jpeg(image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return image_bytes("JPEG", image)


def image_bytes(file_format: str, image: np.ndarray[Any, np.dtype[np.uint8]] | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(1)[0] if image is None else image).save(buffer, file_format)
    return buffer.getvalue()


def frame_folder(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(different_frames(number)):
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder


def davis_root(root: Path, number: int) -> Path:
    frame_folder(root / "JPEGImages/clip", number)
    (root / "Annotations/clip").mkdir(parents=True)
    return root
