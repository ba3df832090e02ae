"""Rendered footage on disk: real videos, their truth, and what crashes and changes leave of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tasks.errors import InputError, StorageError
from tasks.rendering import RenderedClip, load_truth, plan_footage, render_footage
from tasks.rendering.renderer import render_frame
from tasks.rendering.scene import Scene, exact_flow, object_mask
from tests.rendered_scenes import KINDS, NUM_FRAMES, SIZE, small_scenes


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return small_scenes()


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RenderedClip]]:
    out = tmp_path_factory.mktemp("rendered")
    return out, render_footage(out, num_frames=NUM_FRAMES, size=SIZE, gaps=(1, -1))


def decode(video: Path) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(video)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_videos_decode_to_what_was_asked(rendered: tuple[Path, list[RenderedClip]]) -> None:
    out, clips = rendered
    assert [clip.name for clip in clips] == KINDS
    assert sorted(p.name for p in (out / "footage").iterdir()) == sorted(f"{kind}.mp4" for kind in KINDS)
    for clip in clips:
        with av.open(str(clip.video)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == clip.frames_per_second
        frames = decode(clip.video)
        assert len(frames) == clip.num_frames == NUM_FRAMES
        assert frames[0].shape == (*SIZE, 3)


def test_encoded_frames_are_close_to_the_rendered_ones(
    rendered: tuple[Path, list[RenderedClip]], scenes: dict[str, Scene]
) -> None:
    _, clips = rendered
    decoded = decode(clips[0].video)[7].astype(float)
    raw = render_frame(scenes[clips[0].name], 7)
    assert 10 * np.log10(255**2 / ((decoded - raw) ** 2).mean()) > 28  # dB; chroma at half resolution costs most


def test_dis_flow_of_the_video_is_close_to_the_exact_flow(rendered: tuple[Path, list[RenderedClip]]) -> None:
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for clip in rendered[1]:
        truth = load_truth(clip.truth)
        gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in decode(clip.video)]
        errors = {True: [], False: []}
        estimates, exacts = [], []
        for t in range(0, NUM_FRAMES - 1, 2):
            exact = truth.exact_flow(t)
            estimate = estimator.calc(gray[t], gray[t + 1], None).transpose(2, 0, 1)
            error, mask = np.hypot(*(estimate - exact.flow)), truth.mask(t)
            errors[True].append(np.median(error[mask & exact.valid]))
            errors[False].append(np.median(error[~mask & exact.valid]))
            estimates.append(estimate)
            exacts.append(exact.flow)
        assert np.mean(errors[True]) < 0.7, clip.name
        assert np.mean(errors[False]) < 0.3, clip.name
        assert np.corrcoef(np.ravel(estimates), np.ravel(exacts))[0, 1] > 0.75, clip.name


def test_truth_reads_back(rendered: tuple[Path, list[RenderedClip]], scenes: dict[str, Scene]) -> None:
    out, clips = rendered
    clip = clips[0]
    truth = load_truth(clip.truth)
    assert (truth.name, truth.size, truth.gaps) == ("koi", SIZE, (1, -1))
    assert truth.masks().shape == (NUM_FRAMES, *SIZE)
    np.testing.assert_array_equal(truth.mask(3), object_mask(scenes["koi"], 3.0))
    assert set(np.unique(cv2.imread(str(clip.truth / "masks" / "00003.png"), cv2.IMREAD_UNCHANGED))) == {0, 255}
    for gap in (1, -1):
        flow, valid = exact_flow(scenes["koi"], 3, gap)
        np.testing.assert_allclose(truth.exact_flow(3, gap).flow, flow, atol=0.008)
        np.testing.assert_array_equal(truth.exact_flow(3, gap).valid, valid)
    listing = json.loads((out / "truth" / "scene.json").read_text())
    assert [entry["name"] for entry in listing["clips"]] == KINDS
    assert (out / listing["clips"][0]["video"]).is_file()
    assert clip.object_share == pytest.approx(truth.masks().mean(), abs=1e-4)


def test_truth_names_what_is_missing(rendered: tuple[Path, list[RenderedClip]], tmp_path: Path) -> None:
    truth = load_truth(rendered[1][0].truth)
    assert truth.has_flow(0)
    assert not truth.has_flow(NUM_FRAMES - 1)
    with pytest.raises(StorageError, match=r"no exact flow of frame 7, gap 1.*gaps \[1, -1\]"):
        truth.exact_flow(NUM_FRAMES - 1)
    with pytest.raises(StorageError, match="gap 2"):
        truth.exact_flow(0, 2)
    with pytest.raises(StorageError, match="no mask of frame 99"):
        truth.mask(99)
    with pytest.raises(StorageError, match=r"clip\.json is missing"):
        load_truth(tmp_path)


SMALL = {"num_clips": 2, "num_frames": 3, "size": (64, 96)}


def stamps(clips: list[RenderedClip]) -> list[tuple[int, bytes]]:
    return [(clip.video.stat().st_mtime_ns, clip.video.read_bytes()) for clip in clips]


def test_finished_clips_are_not_rendered_again(tmp_path: Path) -> None:
    first = render_footage(tmp_path, **SMALL)
    assert not any(clip.reused for clip in first)
    before = stamps(first)
    seen: list[tuple[int, int, str]] = []
    second = render_footage(tmp_path, **SMALL, on_progress=lambda *at: seen.append(at))
    assert stamps(second) == before
    assert [replace(clip, reused=False) for clip in second] == first
    assert all(clip.reused for clip in second)
    assert seen == [(3, 6, "koi"), (6, 6, "beetle")]


def test_a_changed_or_damaged_clip_is_rendered_again(tmp_path: Path) -> None:
    first = render_footage(tmp_path, **SMALL)
    (_, original), _ = stamps(first)
    first[0].video.write_bytes(original[:-10])
    again = render_footage(tmp_path, **SMALL)
    assert [clip.reused for clip in again] == [False, True]
    assert again[0].video.read_bytes() == original
    other = render_footage(tmp_path, **SMALL, seed=1)
    assert not any(clip.reused for clip in other)
    assert other[0].video.read_bytes() != original


def test_an_interrupted_rendering_continues(tmp_path: Path) -> None:
    def interrupt(done: int, _total: int, _name: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_footage(tmp_path, **SMALL, on_progress=interrupt)
    assert [p.name for p in (tmp_path / "footage").iterdir()] == ["koi.mp4"]
    assert [p.name for p in (tmp_path / "truth").iterdir()] == ["koi"]
    assert [clip.reused for clip in render_footage(tmp_path, **SMALL)] == [True, False]


def test_former_clips_go_and_strangers_stay(tmp_path: Path) -> None:
    render_footage(tmp_path, **SMALL)
    stranger = tmp_path / "footage" / "mine.mp4"
    stranger.write_bytes(b"not ours")
    render_footage(tmp_path, num_clips=1, num_frames=3, size=(64, 96))
    assert sorted(p.name for p in (tmp_path / "footage").iterdir()) == ["koi.mp4", "mine.mp4"]
    assert sorted(p.name for p in (tmp_path / "truth").iterdir()) == ["koi", "scene.json"]


def test_more_clips_than_kinds_repeat_with_other_seeds() -> None:
    plans = plan_footage(num_clips=8, num_frames=10, size=(64, 96), seed=3)
    assert [plan.name for plan in plans[6:]] == ["koi_2", "beetle_2"]
    assert len({plan.seed for plan in plans}) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_clips": 0}, "got 0 clips of 10 frames"),
        ({"num_frames": 1}, "clips of 1 frames"),
        ({"size": (65, 96)}, "expected even sides"),
        ({"size": (64, 32)}, "at least 64"),
        ({"seed": -1}, "got seed -1"),
        ({"gaps": (1, 0)}, "no gap of 0"),
    ],
)
def test_bad_parameters_are_named(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"num_clips": 2, "num_frames": 10, "size": (64, 96), "seed": 0}
    with pytest.raises(InputError, match=message):
        plan_footage(**{**good, **change})  # type: ignore[arg-type]
