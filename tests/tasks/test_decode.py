"""The door to frames: real DAVIS sequences, remote videos, folders that vanish, unusable options."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
from PIL import Image

from tasks.decode import FOLDER_FRAME_RATE, DecodeOptions, iterate_frames, probe
from tasks.decode_limits import DecodeLimits
from tasks.errors import FootageError, InputError
from tasks.footage import FootageItem, discover
from tests.decoded import clip_of, frames_of, numbers_of, refusal_of
from tests.shared import DAVIS, shared_or_skip
from tests.video_files import (
    CODECS,
    write_video,
)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of this machine that can not send parts of files, like many."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_videos_from_the_web(tmp_path: Path, web: str) -> None:
    write_video(tmp_path / "clip.mp4")
    discovery = discover([f"{web}/clip.mp4?token=1", f"{web}/missing.mp4"])
    assert [item.clip for item in discovery.items] == ["clip"]
    assert [rejection.reason for rejection in discovery.rejections] == ["not_found"]
    assert numbers_of(list(iterate_frames(discovery.items[0]))) == list(range(10))


@contextmanager
def streaming(chunks: Iterable[bytes]) -> Iterator[FootageItem]:
    """A video from a server that tells no length and sends from front to back, until it is left alone."""

    class Streaming(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                for chunk in chunks:
                    self.wfile.write(chunk)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Streaming) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/clip.mp4"
        yield FootageItem(uri=uri, clip="clip", kind="video")
        server.shutdown()


def test_what_can_only_be_read_once_is_copied(tmp_path: Path) -> None:
    with streaming([write_video(tmp_path / "clip.mp4").read_bytes()]) as item:
        assert numbers_of(list(iterate_frames(item))) == list(range(10))
        assert probe(item).width == 64


def test_a_copy_stops_at_the_limit() -> None:
    num_sent = 0

    def megabytes() -> Iterator[bytes]:
        nonlocal num_sent
        while num_sent < 64:  # far more than any buffer holds
            num_sent += 1
            yield bytes(1 << 20)

    with (
        streaming(megabytes()) as item,
        pytest.raises(FootageError, match=r"too_large: clip.mp4, .* bytes; expected at most 1048577 bytes"),
    ):
        list(iterate_frames(item, limits=DecodeLimits(max_bytes=(1 << 20) + 1)))
    assert num_sent < 48


def test_remote_videos_are_read_like_local_ones(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for extension in CODECS:
        path = write_video(tmp_path / f"clip{extension}")
        memory.pipe(f"/decode_test/{path.name}", path.read_bytes())
        assert numbers_of(frames_of(f"memory://decode_test/{path.name}")) == list(range(10))
        memory.pipe(f"/decode_test/{path.name}", path.read_bytes()[:-60])
        assert refusal_of(f"memory://decode_test/{path.name}").reason == "corrupt"
    memory.rm("/decode_test", recursive=True)


def test_davis_frames_pass_their_bytes_through_with_their_masks() -> None:
    root = shared_or_skip(DAVIS)
    folder = root / "JPEGImages/480p/dog"
    frames = frames_of(folder)
    assert len(frames) == len(list(folder.iterdir())) == probe(clip_of(folder)).num_frames
    for frame in (frames[0], frames[-1]):
        data = (folder / frame.source_name).read_bytes()
        assert frame.jpeg == data
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(frame.image.astype(int) - decoded).max() <= 1  # two builds of libjpeg-turbo
        stored = np.asarray(Image.open(root / "Annotations/480p/dog" / f"{Path(frame.source_name).stem}.png"))
        assert frame.annotation is not None
        np.testing.assert_array_equal(frame.annotation, stored == 255)
    assert frames[12].time_seconds == 12 / FOLDER_FRAME_RATE
    assert [frame.source_name for frame in frames[:2]] == ["00000.jpg", "00001.jpg"]


def test_davis_frames_shrunk_keep_image_and_mask_together() -> None:
    (first, *_) = frames_of(shared_or_skip(DAVIS) / "JPEGImages/480p/dog", max_side=320, fps=2)
    (whole, *_) = frames_of(DAVIS / "JPEGImages/480p/dog", fps=2)
    assert first.jpeg is None
    assert first.annotation is not None
    assert whole.annotation is not None
    assert first.image.shape == (180, 320, 3)
    assert first.annotation.shape == (180, 320)
    assert first.annotation.mean() == pytest.approx(whole.annotation.mean(), rel=0.01)
    for axis in (0, 1):  # the middle of the object stays where it is
        scale = whole.annotation.shape[axis] / first.annotation.shape[axis]
        middle = (np.nonzero(first.annotation)[axis].mean() + 0.5) * scale - 0.5
        assert middle == pytest.approx(np.nonzero(whole.annotation)[axis].mean(), abs=0.3)


def test_frame_rate_of_a_folder() -> None:
    frames = frames_of(shared_or_skip(DAVIS) / "JPEGImages/480p/dog", fps=8, max_side=64)
    assert [frame.source_name for frame in frames[:3]] == ["00000.jpg", "00003.jpg", "00006.jpg"]


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"max_side": 8}])
def test_unusable_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        DecodeOptions(**options)
