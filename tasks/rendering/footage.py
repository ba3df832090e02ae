"""Render the demo's footage: real H.264 files, with the truth about them kept aside.

A clip is rendered under temporary names and published by renaming, its video first and its truth folder last. A
finished clip whose parameters have not changed is not rendered again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from tasks.errors import InputError
from tasks.rendering.renderer import render_frame
from tasks.rendering.scene import Scene, exact_flow, object_mask
from tasks.rendering.stages import STAGES, build_scene
from tasks.rendering.truth import load_truth, save_flow, save_mask

RENDERER_VERSION = 1
"""Raise it when a change alters pictures or truth: clips of another version are rendered again."""

_CRF = 18  # x264's own guide calls 17-18 visually lossless; DIS sees no difference from the raw frames
_SMALLEST_SIDE = 64  # below, silhouettes are a few pixels wide and DIS has no pyramid left

Progress = Callable[[int, int, str], None]
"""Called with frames done, frames in all, and the name of the clip in work."""


@dataclass(frozen=True, kw_only=True)
class ClipParameters:
    """Everything that decides what a clip looks like."""

    name: str
    kind: str
    seed: tuple[int, int]
    num_frames: int
    size: tuple[int, int]
    gaps: tuple[int, ...]
    renderer_version: int = RENDERER_VERSION


@dataclass(frozen=True, kw_only=True)
class RenderedClip:
    """One finished clip.

    name, kind: its name, and which object it shows. video: the mp4. truth: folder for ``load_truth``.
    num_frames, size (height, width), frames_per_second: of the video.
    object_share: mean share of the frame that the object covers.
    reused: it was there already and has not been rendered again.
    """

    name: str
    kind: str
    video: Path
    truth: Path
    num_frames: int
    size: tuple[int, int]
    frames_per_second: int
    object_share: float
    reused: bool


def plan_footage(
    *, num_clips: int, num_frames: int, size: tuple[int, int], seed: int, gaps: Sequence[int] = (1,)
) -> list[ClipParameters]:
    """Return the parameters of every clip: the kinds in turn, each with a seed of its own.

    Raises:
        InputError: a count or a size is out of range.
    """
    if num_clips < 1 or num_frames < 2:
        raise InputError(f"got {num_clips} clips of {num_frames} frames; expected at least 1 clip of at least 2 frames")
    if min(size) < _SMALLEST_SIDE or size[0] % 2 or size[1] % 2:
        raise InputError(
            f"got frames of {size[0]}x{size[1]} (height x width); expected even sides of at least {_SMALLEST_SIDE}, "
            "since H.264 stores colour at half resolution"
        )
    if seed < 0 or 0 in gaps:
        raise InputError(f"got seed {seed} and gaps {list(gaps)}; expected a seed of at least 0 and no gap of 0")
    kinds = list(STAGES)
    plans = []
    for index in range(num_clips):
        kind, lap = kinds[index % len(kinds)], index // len(kinds)
        name = kind if lap == 0 else f"{kind}_{lap + 1}"
        plans.append(
            ClipParameters(name=name, kind=kind, seed=(seed, index), num_frames=num_frames, size=size, gaps=tuple(gaps))
        )
    return plans


def render_footage(
    out: Path,
    *,
    num_clips: int = 6,
    num_frames: int = 40,
    size: tuple[int, int] = (216, 384),
    seed: int = 0,
    gaps: Sequence[int] = (1,),
    on_progress: Progress | None = None,
) -> list[RenderedClip]:
    """Render clips into ``out/footage`` and what is known about them into ``out/truth``.

    The footage folder then holds these clips and nothing that an earlier call with other parameters left.

    Args:
        out: folder, created when missing.
        num_clips: number of clips; with more than there are kinds, kinds return with other textures and ways.
        num_frames: frames of every clip.
        size: height and width of a frame in pixels.
        seed: other seeds give other textures, ways and silhouettes.
        gaps: frame gaps to keep exact flow for.
        on_progress: called after every frame with frames done, frames in all and the clip's name.

    Returns:
        The clips in their order.

    Raises:
        InputError: a count or a size is out of range.
    """
    plans = plan_footage(num_clips=num_clips, num_frames=num_frames, size=size, seed=seed, gaps=gaps)
    _remove_former_clips(out, keep={plan.name for plan in plans})
    clips = []
    for index, plan in enumerate(plans):

        def report(done: int, *, before: int = index * num_frames, name: str = plan.name) -> None:
            if on_progress is not None:
                on_progress(before + done, len(plans) * num_frames, name)

        clips.append(render_clip(out, plan, report))
    _write_json(out / "truth" / "scene.json", {"clips": [_summary(clip, out) for clip in clips], "seed": seed})
    return clips


def render_clip(out: Path, plan: ClipParameters, on_frame: Callable[[int], None] | None = None) -> RenderedClip:
    """Render one clip, unless it is there already; ``on_frame`` is called with the number of frames done."""
    finished = _finished(out, plan)
    if finished is not None:
        if on_frame is not None:
            on_frame(plan.num_frames)
        return finished
    video, truth = _paths(out, plan)
    work = truth.with_name(f".{plan.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    video.parent.mkdir(parents=True, exist_ok=True)
    try:
        scene = build_scene(plan.kind, name=plan.name, seed=plan.seed, num_frames=plan.num_frames, size=plan.size)
        encode_video(work / "clip.mp4", _frames(scene, on_frame), frames_per_second=scene.frames_per_second)
        share = _save_truth(work, scene, plan.gaps)
        _publish(work, video, truth, plan, frames_per_second=scene.frames_per_second, share=share)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    clip = _finished(out, plan)
    assert clip is not None
    return RenderedClip(**{**clip.__dict__, "reused": False})


def encode_video(path: Path, frames: Iterator[npt.NDArray[np.uint8]], *, frames_per_second: int) -> None:
    """Encode RGB frames [h, w, 3] as H.264 in an mp4: yuv420p, which every player shows."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream: Any = None
        for image in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(frames_per_second))
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": str(_CRF), "preset": "medium"}
                stream.codec_context.thread_count = 1  # the same bytes whatever the number of cores
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _frames(scene: Scene, on_frame: Callable[[int], None] | None) -> Iterator[npt.NDArray[np.uint8]]:
    for frame in range(scene.num_frames):
        yield render_frame(scene, frame)
        if on_frame is not None:
            on_frame(frame + 1)


def _save_truth(folder: Path, scene: Scene, gaps: Sequence[int]) -> float:
    """Write masks and flows; return the mean share of the frame that the object covers."""
    shares = []
    for frame in range(scene.num_frames):
        mask = object_mask(scene, float(frame))
        shares.append(float(mask.mean()))
        save_mask(folder, frame, mask)
        for gap in gaps:
            if 0 <= frame + gap < scene.num_frames:
                save_flow(folder, frame, gap, *exact_flow(scene, frame, gap))
    return float(np.mean(shares))


def _paths(out: Path, plan: ClipParameters) -> tuple[Path, Path]:
    return out / "footage" / f"{plan.name}.mp4", out / "truth" / plan.name


def _publish(
    work: Path, video: Path, truth: Path, plan: ClipParameters, *, frames_per_second: int, share: float
) -> None:
    """Move a finished clip to its place; from the removal of the old truth to the last rename it counts as missing."""
    record = {
        "parameters": asdict(plan),
        "frames_per_second": frames_per_second,
        "object_share": round(share, 4),
        "video_sha256": _sha256(work / "clip.mp4"),
    }
    shutil.rmtree(truth, ignore_errors=True)
    (work / "clip.mp4").replace(video)
    _write_json(work / "clip.json", record)
    work.rename(truth)


def _finished(out: Path, plan: ClipParameters) -> RenderedClip | None:
    """Return a clip that is there with the same parameters and whose video is the one that was published."""
    video, truth = _paths(out, plan)
    if not (truth / "clip.json").is_file() or not video.is_file():
        return None
    record = json.loads((truth / "clip.json").read_text())
    wanted = json.loads(json.dumps(asdict(plan)))
    if record["parameters"] != wanted or record["video_sha256"] != _sha256(video):
        return None
    known = load_truth(truth)
    return RenderedClip(
        name=known.name,
        kind=known.kind,
        video=video,
        truth=truth,
        num_frames=known.num_frames,
        size=known.size,
        frames_per_second=known.frames_per_second,
        object_share=float(record["object_share"]),
        reused=True,
    )


def _remove_former_clips(out: Path, *, keep: set[str]) -> None:
    """Remove clips that an earlier call listed in ``scene.json`` and this one does not make; touch nothing else."""
    listing = out / "truth" / "scene.json"
    if not listing.is_file():
        return
    for former in json.loads(listing.read_text())["clips"]:
        if former["name"] not in keep:
            (out / "footage" / f"{former['name']}.mp4").unlink(missing_ok=True)
            shutil.rmtree(out / "truth" / former["name"], ignore_errors=True)


def _summary(clip: RenderedClip, out: Path) -> dict[str, object]:
    return {
        "name": clip.name,
        "kind": clip.kind,
        "video": clip.video.relative_to(out).as_posix(),
        "truth": clip.truth.relative_to(out).as_posix(),
        "num_frames": clip.num_frames,
        "size": list(clip.size),
        "frames_per_second": clip.frames_per_second,
        "object_share": clip.object_share,
    }


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
