"""Footage in, masks out: real files decoded and encoded, with a method whose masks are known."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from torch import Tensor

from model.dis import DisEstimator
from model.types import Segmentation
from tasks.encode import VideoWriter
from tasks.errors import FootageError, InputError, StorageError
from tasks.segment import SegmentProgress, SegmentResult, segment
from tests.tasks.moving_square import HEIGHT, WIDTH, ColourMethod, loaded, overlap, square_clip
from tests.tasks.test_report import Links

pytestmark = pytest.mark.usefixtures("one_thread")


def write_video(path: Path, num_frames: int, *, fps: float = 25, times: list[float] | None = None, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=fps, crf=10) as writer:
        for index, frame in enumerate(square_clip(num_frames, **size)[0]):
            writer.write(frame, times[index] if times else None)
    return path


def write_frames(folder: Path, num_frames: int) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(square_clip(num_frames)[0]):
        cv2.imwrite(str(folder / f"{index:05d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return folder


def run(
    inputs: list[Path | str],
    out: Path,
    *,
    method: ColourMethod | None = None,
    flow: bool = True,
    on_progress: Callable[[SegmentProgress], None] | None = None,
) -> SegmentResult:
    estimator = DisEstimator("ultrafast") if flow else None
    model = loaded(method or ColourMethod())
    return segment([str(path) for path in inputs], model, out, estimator=estimator, on_progress=on_progress)


def read_mask(path: Path) -> np.ndarray:
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask.ndim == 2
    assert set(np.unique(mask)) <= {0, 255}
    return mask == 255


def test_video_becomes_overlay_masks_and_pages(tmp_path):
    result = run([write_video(tmp_path / "in/fox.mp4", 9, fps=30)], tmp_path / "out")
    folder = tmp_path / "out/fox"
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.html",
        "masks",
        "overlay.mp4",
        "provenance.json",
        "result.json",
    ]
    masks = sorted((folder / "masks").iterdir())
    assert [path.name for path in masks] == [f"{index:05d}.png" for index in range(9)]
    truth = square_clip(9)[1]
    assert min(overlap(read_mask(path), mask) for path, mask in zip(masks, truth, strict=True)) > 0.85
    with av.open(str(folder / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.frames) == (WIDTH, HEIGHT, 9)
        assert float(stream.average_rate) == pytest.approx(30)
    assert result.page == str(tmp_path / "out/index.html")
    clip = result.clips[0]
    assert (clip.name, clip.num_frames, clip.rule, clip.foreground) == ("fox", 9, "motion", (1,))
    assert clip.num_empty_frames == 0
    record = json.loads((folder / "result.json").read_text())
    assert record["model"]["weights_sha256"] == "0" * 64
    assert record["foreground"] == {"segments": [1], "rule": "motion", "label_free": True}


def test_overlay_shows_the_object_and_leaves_the_rest(tmp_path):
    run([write_video(tmp_path / "fox.mp4", 6)], tmp_path / "out")
    with av.open(str(tmp_path / "out/fox/overlay.mp4")) as container:
        drawn = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    frames, masks = square_clip(6)
    outside = ~cv2.dilate(masks[3].astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    assert np.abs(drawn[3] - frames[3])[outside].mean() < 8
    assert drawn[3][masks[3]].mean(0)[0] > 200


def test_any_mix_of_inputs(tmp_path):
    video = write_video(tmp_path / "a/fox.mp4", 5)
    folder = write_frames(tmp_path / "b/hare", 4)
    image = tmp_path / "c/still.png"
    image.parent.mkdir()
    cv2.imwrite(str(image), cv2.cvtColor(square_clip(1)[0][0], cv2.COLOR_RGB2BGR))
    write_video(tmp_path / "d/one.mov.mp4", 4)
    result = run([video, folder, image, str(tmp_path / "d/*.mp4")], tmp_path / "out")
    assert [(clip.name, clip.num_frames, clip.rule) for clip in result.clips] == [
        ("fox", 5, "motion"),
        ("hare", 4, "motion"),
        ("still", 1, "appearance"),
        ("one.mov", 4, "motion"),
    ]
    still = tmp_path / "out/still"
    assert sorted(path.name for path in still.iterdir()) == [
        "index.html",
        "masks",
        "overlay.png",
        "provenance.json",
        "result.json",
    ]
    assert overlap(read_mask(still / "masks/00000.png"), square_clip(1)[1][0]) > 0.9
    assert cv2.imread(str(still / "overlay.png")).shape == (HEIGHT, WIDTH, 3)


def test_high_speed_footage_keeps_its_times(tmp_path):
    video, interval = tmp_path / "fox.mp4", Fraction(1, 5000)
    with VideoWriter(video, fps=1000) as writer:
        for index, frame in enumerate(square_clip(40)[0]):
            writer.write(frame, float(index * interval))
    run([video], tmp_path / "out")
    with av.open(str(tmp_path / "out/fox/overlay.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == [float(i * interval) for i in range(40)]


def test_odd_sizes_become_even_and_masks_keep_theirs(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for index, frame in enumerate(square_clip(4, height=71, width=95)[0]):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    run([folder], tmp_path / "out")
    with av.open(str(tmp_path / "out/odd/overlay.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 72)
    assert read_mask(tmp_path / "out/odd/masks/00003.png").shape == (71, 95)


def test_frames_keep_their_own_times(tmp_path):
    times = [0.0, 0.1, 0.15, 0.5, 0.9]
    run([write_video(tmp_path / "vfr.mp4", 5, times=times)], tmp_path / "out")
    with av.open(str(tmp_path / "out/vfr/overlay.mp4")) as container:
        shown = [float(frame.time) for frame in container.decode(video=0)]
    assert shown == pytest.approx(times, abs=1e-3)


def test_bad_input_is_reported_and_the_rest_goes_on(tmp_path):
    good = write_video(tmp_path / "good.mp4", 4)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"this is no video at all")
    result = run([bad, good, tmp_path / "missing.mp4"], tmp_path / "out")
    assert [clip.name for clip in result.clips] == ["good"]
    assert sorted((Path(refused.source).name, refused.reason) for refused in result.rejections) == [
        ("bad.mp4", "not_video"),
        ("missing.mp4", "not_found"),
    ]
    page = Path(result.page).read_text()
    assert "not_video" in page
    assert "missing.mp4" in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good", "index.html"]


def test_nothing_usable_raises(tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"this is no video at all")
    with pytest.raises(FootageError, match="none of 1 inputs"):
        run([bad], tmp_path / "out")
    with pytest.raises(InputError, match="no footage found"):
        run([tmp_path / "missing.mp4"], tmp_path / "out")


def test_rerun_replaces_a_result_as_a_whole(tmp_path):
    video = tmp_path / "fox.mp4"
    run([write_video(video, 8)], tmp_path / "out")
    leftover = tmp_path / f"out/.fox.{'0' * 32}.partial"  # as a killed run leaves it
    leftover.mkdir()
    other = tmp_path / f"out/.fox.2.{'0' * 32}.partial"  # of another clip, which may be at work
    other.mkdir()
    run([write_video(video, 5)], tmp_path / "out")
    assert len(list((tmp_path / "out/fox/masks").iterdir())) == 5
    assert not leftover.exists()
    assert other.exists()
    other.rmdir()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["fox", "index.html"]


def test_what_is_no_result_is_not_overwritten(tmp_path):
    precious = tmp_path / "out/fox/thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    with pytest.raises(StorageError, match="in the way"):
        run([write_video(tmp_path / "fox.mp4", 4)], tmp_path / "out")
    assert precious.read_text() == "years of work"


def test_out_that_is_a_file_is_told(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="can not make the folder"):
        run([write_video(tmp_path / "fox.mp4", 4)], tmp_path / "out")


def test_a_failure_half_way_leaves_nothing_to_read(tmp_path):
    def stop(now: SegmentProgress) -> None:
        if now.stage == "writing" and now.frames_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([write_video(tmp_path / "fox.mp4", 6)], tmp_path / "out", on_progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_counts_every_frame_twice(tmp_path):
    seen: list[SegmentProgress] = []
    run([write_video(tmp_path / "fox.mp4", 5)], tmp_path / "out", on_progress=seen.append)
    written = [now for now in seen if now.stage == "writing"]
    assert [now.frames_done for now in written] == [1, 2, 3, 4, 5]
    assert {now.frames_total for now in seen} == {5}
    assert {(now.clip, now.clip_number, now.num_clips) for now in seen} == {("fox", 0, 1)}
    assert max(now.frames_done for now in seen if now.stage == "looking") == 5


def test_frames_in_which_nothing_is_found_are_told(tmp_path):
    class LosesIt(ColourMethod):
        def segment(self, images: Tensor) -> Segmentation:
            found = super().segment(images).probabilities
            found[6:, 2] += found[6:, 1]
            found[6:, 1] = 0.0
            return Segmentation(probabilities=found)

    result = run([write_video(tmp_path / "fox.mp4", 8)], tmp_path / "out", method=LosesIt())
    assert result.clips[0].num_empty_frames == 2
    assert not read_mask(tmp_path / "out/fox/masks/00007.png").any()
    assert "empty in 2 of 8 frames" in Path(result.page).read_text()


def test_pages_need_nothing_but_what_lies_beside_them(tmp_path):
    result = run([write_video(tmp_path / "fox.mp4", 4)], tmp_path / "out")
    overview, page = Path(result.page).read_text(), (tmp_path / "out/fox/index.html").read_text()
    assert 'href="fox/index.html"' in overview
    for links in (Links(overview), Links(page)):
        assert "script" not in links.tags
        assert all(address.startswith("data:image/jpeg") or address == "overlay.mp4" for address in links.fetched)


def test_memory_does_not_grow_with_length(tmp_path):
    def peak(video: Path) -> int:
        tracemalloc.start()
        run([video], tmp_path / "out", method=ColourMethod((18, 24)), flow=False)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    short, long = write_video(tmp_path / "short.mp4", 24), write_video(tmp_path / "long.mp4", 144)
    peak(short)  # the first run imports and fills caches
    frame_bytes = HEIGHT * WIDTH * 3
    assert peak(long) < peak(short) + 3 * frame_bytes  # 120 frames more, of 20 736 bytes each


def test_writer_guards(tmp_path):
    with pytest.raises(InputError, match="between 0 and 1000"):
        VideoWriter(tmp_path / "a.mp4", fps=0)
    with VideoWriter(tmp_path / "b.mp4", fps=5) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
        with pytest.raises(InputError, match=r"expected \(16, 16\)"):
            writer.write(np.zeros((18, 16, 3), np.uint8))
