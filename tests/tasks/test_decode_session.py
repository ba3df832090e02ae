"""The process that decodes: what it can not do, how it may end, and what is refused for each limit."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tasks.decode import iterate_frames, probe
from tasks.decode_channel import MAX_MESSAGE_BYTES, Channel, ChannelError
from tasks.decode_limits import DecodeLimits
from tasks.decode_session import DecodeSession, confinement
from tasks.errors import FootageError, InputError, RejectionReason
from tasks.settings import Settings
from tests.decoded import clip_of
from tests.video_files import numbered_frames, write_video

CONFINED = """
import os, resource, socket, sys, threading
from tasks.decode_limits import DecodeLimits
from tasks.decode_sandbox import confine, harden_server, leave_network

def outcome(action):
    try:
        action()
    except (OSError, MemoryError, ValueError) as error:
        return type(error).__name__
    return "done"

address = ("127.0.0.1", int(sys.argv[1]))
print("connect before", outcome(lambda: socket.create_connection(address).close()))
harden_server()
print("left", leave_network())
print("connect without network", outcome(lambda: socket.create_connection(address, timeout=5)))
print("confined", confine(DecodeLimits(memory_mb=200)))
print("open", outcome(lambda: open(sys.argv[2])))
print("socket", outcome(socket.socket))
print("fork", outcome(os.fork))
print("exec", outcome(lambda: os.execv(sys.executable, [sys.executable])))
print("kill", outcome(lambda: os.kill(os.getppid(), 0)))
print("more memory", outcome(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))))
print("allocate", outcome(lambda: bytearray(300 << 20)))
print("compute", sum(range(10)))
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is Linux's")
def test_a_confined_process_reaches_neither_files_nor_network_nor_other_processes(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", CONFINED, str(server.getsockname()[1]), str(tmp_path / "secret")]
        told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    said = dict(line.rpartition(" ")[::2] for line in told.splitlines())
    if said.pop("left") == "True":  # where namespaces are not allowed, the filter alone stops connections
        assert said.pop("connect without network") == "OSError"
    assert said.pop("connect before") == "done"
    said.pop("connect without network", None)
    assert said.pop("allocate") == "MemoryError"
    refused = dict.fromkeys(("open", "socket", "fork", "exec", "kill"), "PermissionError")
    assert said == {"confined": "True", **refused, "more memory": "ValueError", "compute": "45", "": "thread"}


def living_children(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]


def decode_server() -> psutil.Process:
    """The server of this process, which has children of other kinds too: a Ray cluster, the dead of other tests."""
    return next(child for child in living_children(psutil.Process()) if "tasks.decode_server" in child.cmdline())


def decoders() -> list[psutil.Process]:
    """Processes that decode or wait to, oldest first."""
    return sorted(living_children(decode_server()), key=lambda p: p.create_time())


def death_by(source: Path, number: signal.Signals, **limits: float) -> FootageError:
    frames = iterate_frames(clip_of(source), limits=DecodeLimits(**limits))  # type: ignore[arg-type]
    next(frames)
    at_work = decoders()[0]
    at_work.send_signal(number)
    with pytest.raises(FootageError) as caught:
        list(frames)
    deadline = time.monotonic() + 10
    while at_work in decoders():
        assert time.monotonic() < deadline
    return caught.value


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    """More frames than fit into shared memory, so that the process that decodes them still lives after the first."""
    frames = numbered_frames(4, 1280, 720) * 10
    return write_video(tmp_path / "clip.mp4", frames, codec_options={"preset": "ultrafast"})


@pytest.mark.parametrize(
    ("number", "reason", "said"),
    [
        (signal.SIGSEGV, "crashed", "killed by SIGSEGV"),
        (signal.SIGKILL, "crashed", "killed by SIGKILL"),
        (signal.SIGXCPU, "timeout", "GWM_DECODE_CPU_SECONDS"),
        (signal.SIGSTOP, "timeout", "GWM_DECODE_STALL_SECONDS"),
    ],
)
def test_the_end_of_the_process_is_told(
    long_video: Path, number: signal.Signals, reason: RejectionReason, said: str
) -> None:
    error = death_by(long_video, number, stall_seconds=1.0)
    assert error.reason == reason
    assert said in error.detail
    assert probe(clip_of(long_video)).width == 1280  # and the next clip is none the wiser


def test_a_killed_server_is_replaced(long_video: Path) -> None:
    frames = iterate_frames(clip_of(long_video))
    next(frames)
    decode_server().kill()
    with pytest.raises(FootageError, match="crashed"):
        list(frames)
    assert len(list(iterate_frames(clip_of(long_video)))) == 40


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_bytes": 1000}, "GWM_DECODE_MAX_BYTES"),
        ({"max_frame_pixels": 1280 * 719}, "GWM_DECODE_MAX_FRAME_PIXELS"),
        ({"max_frames": 39}, "GWM_DECODE_MAX_FRAMES"),
        ({"max_duration_seconds": 1.0}, "GWM_DECODE_MAX_DURATION_SECONDS"),
        ({"memory_mb": 8}, "GWM_DECODE_MEMORY_MB"),
    ],
)
def test_every_limit_refuses_and_names_itself(long_video: Path, limits: dict[str, float], said: str) -> None:
    with pytest.raises(FootageError) as caught:
        list(iterate_frames(clip_of(long_video), limits=DecodeLimits(**limits)))  # type: ignore[arg-type]
    assert caught.value.reason == "too_large"
    assert said in caught.value.detail


def test_an_image_file_beyond_its_limit_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.bmp")
    with pytest.raises(FootageError, match=r"too_large: a.bmp has 1001 bytes.*GWM_DECODE_MAX_IMAGE_BYTES"):
        list(iterate_frames(clip_of(tmp_path / "a.bmp"), limits=DecodeLimits(max_image_bytes=1000)))


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWM_DECODE_MAX_FRAMES", "7")
    assert Settings().decode == DecodeLimits(max_frames=7)
    with pytest.raises(InputError, match="GWM_DECODE_THREADS=0"):
        DecodeLimits(threads=0)


def test_the_server_is_given_no_credentials(long_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    probe(clip_of(long_video))
    assert {name for name in decode_server().environ() if name.startswith("AWS")} == set()


class _Liar:
    """A decoder that was taken over, in a thread's stead: what it sends is set down beforehand."""

    def __init__(self, *messages: bytes) -> None:
        ours, self.theirs = socket.socketpair()
        with ours:
            for message in messages:
                ours.sendall(len(message).to_bytes(4, "big") + message)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"[]", "expected an object"),
        (b"{", "no JSON"),
        (b"x" * (MAX_MESSAGE_BYTES + 1), "expected at most"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, said: str) -> None:
    liar = _Liar(message)
    with liar.theirs, pytest.raises(ChannelError, match=said):
        Channel(liar.theirs).receive(5.0)


@pytest.mark.parametrize(
    "message",
    [
        b'{"read": -1, "bytes": 10}',
        b'{"read": 0, "bytes": 99999999}',
        b'{"room": 99999999999}',
        b'{"refused": "because", "detail": ""}',
        b'{"alive": "many", "at": 0}',
    ],
)
def test_messages_without_sense_are_a_crash(long_video: Path, message: bytes) -> None:
    liar = _Liar(message)
    with DecodeSession({"do": "probe", "name": "clip"}, DecodeLimits(), io.BytesIO(b"1234")) as session:
        session._channel.close()
        session._channel = Channel(liar.theirs)
        with pytest.raises(FootageError, match=r"crashed: .* sent nonsense"):
            session.answer()


@pytest.mark.parametrize("shape", [[2, 2], [2, 2, 4], [-1, -1, 3], [10**6, 10**6, 3], [0, 0, 3], "wide"])
def test_pictures_without_sense_are_a_crash(shape: object) -> None:
    with DecodeSession({"do": "images", "name": "clip"}, DecodeLimits()) as session:
        with pytest.raises(FootageError, match=r"crashed: .* sent nonsense"):
            session.picture({"shape": shape, "slot": 0})
        session._make_room(12)
        with pytest.raises(FootageError, match=r"crashed: .* sent nonsense"):
            session.picture({"shape": shape, "slot": 0 if shape != [2, 2] else 10**9})


def test_nothing_is_left_open(long_video: Path) -> None:
    list(iterate_frames(clip_of(long_video)))
    before = psutil.Process().num_fds()
    for _ in range(3):
        frames = iterate_frames(clip_of(long_video))
        next(frames)
        frames.close()  # type: ignore[attr-defined]
    assert psutil.Process().num_fds() == before
    assert len(decoders()) <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="both are Linux's")
def test_this_machine_confines() -> None:
    assert confinement().has_filtered_calls


def test_more_threads_decode_the_same(long_video: Path) -> None:
    one, four = ([f.image for f in iterate_frames(clip_of(long_video), limits=DecodeLimits(threads=n))] for n in (1, 4))
    assert len(one) == len(four) == 40
    assert all((first == second).all() for first, second in zip(one, four, strict=True))
