"""Files that are no video, hold none, were cut off or damaged: each refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tasks.decode import iterate_frames, probe
from tasks.errors import FootageError
from tests.decoded import clip_of, frames_of, refusal_of, write_bytes
from tests.video_files import (
    CODECS,
    cut_off,
    damage,
    numbered_frames,
    write_audio,
    write_audio_with_cover,
    write_video,
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"no video at all, only text",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ID3\4\0\0\0\0\0\0 an mp3",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\x47" * 400,
        b"ffconcat version 1.0\nfile /etc/passwd\n",
    ],
)
def test_what_is_no_container_is_not_video(tmp_path: Path, data: bytes) -> None:
    error = refusal_of(write_bytes(tmp_path / "clip.mp4", data))
    assert error.reason == "not_video"
    assert "expected an mp4, mov, mkv, webm or avi" in error.detail


def test_sound_alone_has_no_video_stream(tmp_path: Path) -> None:
    assert refusal_of(write_audio(tmp_path / "sound.mp4")).reason == "no_video_stream"
    error = refusal_of(write_audio_with_cover(tmp_path / "music.mp4"))
    assert error.reason == "no_video_stream"
    assert "audio, cover art" in error.detail


def test_unknown_codec_is_told(tmp_path: Path) -> None:
    data = write_video(tmp_path / "clip.mp4").read_bytes().replace(b"avc1", b"zzzz")
    error = refusal_of(write_bytes(tmp_path / "clip.mp4", data))
    assert error.reason == "no_video_stream"
    assert "does not know" in error.detail


def noise(num_frames: int = 30) -> list[Any]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(num_frames)]


@pytest.mark.parametrize("fraction", [0.3, 0.97])
@pytest.mark.parametrize(
    ("extension", "layout"),
    [(extension, "") for extension in CODECS] + [(".mp4", "faststart"), (".mp4", "frag_keyframe+empty_moov")],
)
def test_a_file_that_was_cut_off_is_corrupt(tmp_path: Path, extension: str, fraction: float, layout: str) -> None:
    options = {"movflags": layout} if layout else {}
    whole = write_video(tmp_path / f"whole{extension}", noise(), container_options=options)
    assert len(frames_of(whole)) == 30
    error = refusal_of(cut_off(whole, tmp_path / f"cut{extension}", fraction))
    assert error.reason == "corrupt"


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".avi"])
def test_damage_in_the_middle_is_corrupt_after_good_frames(tmp_path: Path, extension: str) -> None:
    images = [frame + noise(1)[0] // 8 for frame in numbered_frames(50)]
    whole = write_video(tmp_path / f"whole{extension}", images, codec_options={"g": "10"})
    damaged = damage(whole, tmp_path / f"damaged{extension}", num_bytes=whole.stat().st_size // 4)
    frames = iterate_frames(clip_of(damaged))
    assert next(frames).index == 0
    with pytest.raises(FootageError, match="corrupt"):
        list(frames)


def test_a_container_without_frames_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(FootageError, match="without a frame"):
        probe(clip_of(path))


def test_footage_that_vanished_is_not_found(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    item = clip_of(path)
    path.unlink()
    with pytest.raises(FootageError, match="not_found"):
        next(iterate_frames(item))
