"""Anybody's footage to masks that they can use.

::

    out/index.html               all clips, and what was refused and why
    out/<clip>/overlay.mp4       the footage with the foreground drawn on it
    out/<clip>/masks/NNNNN.png   0 and 255, one per frame
    out/<clip>/index.html        pictures of the clip
    out/<clip>/result.json       which model made it, and how the foreground was chosen
    out/<clip>/provenance.json   model, training, footage and its hash, as every mask bears them too

A single image gives ``overlay.png`` in place of the video. Frames are decoded twice, by a thread that runs a few frames
ahead of the network and of the encoder, so memory does not grow with length. A clip's folder appears complete and
replaces an earlier result of the same clip (``tasks/result_folder.py``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from model.optical_flow import OpticalFlowEstimator
from tasks.adapt import AdaptationOptions, AdaptationRecord, build_adapter
from tasks.clip_page import ClipSummary, render_clip, render_overview
from tasks.clip_writer import FRAMES_AHEAD, MASK_FOLDER, write_clip
from tasks.decode import DecodeOptions, iterate_frames, probe
from tasks.errors import FootageError
from tasks.footage import FootageItem, Rejection, discover
from tasks.mask_provenance import PROVENANCE_FILE, MaskProvenance, provenance_of
from tasks.model_package import LoadedModel
from tasks.prefetch import prefetched
from tasks.refine import MaskRefiner, build_refiner
from tasks.result_folder import PAGE_FILE, RESULT_FILE, ResultFolder
from tasks.segment_clip import ClipOptions, ClipSegmenter
from tasks.storage import location


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """How footage is read and looked at.

    crf: settings of the dense CRF that refines masks (tasks/refine.py). model_reference: what the model is called in
    the provenance of the masks; None for the folder that it was read from.
    """

    clip: ClipOptions = field(default_factory=ClipOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    crf: str | None = None
    model_reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentProgress:
    """Where a run is: every frame is looked at once and written once."""

    clip: str
    clip_number: int
    num_clips: int
    stage: Literal["looking", "writing"]
    frames_done: int
    frames_total: int | None


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What came out: finished clips, and inputs that were refused, with the reason."""

    clips: tuple[ClipSummary, ...]
    rejections: tuple[Rejection, ...]
    page: str


def segment(
    inputs: Sequence[str],
    model: LoadedModel,
    out: str | Path,
    *,
    estimator: OpticalFlowEstimator | None,
    options: SegmentOptions | None = None,
    device: str = "cpu",
    adaptation: AdaptationOptions | None = None,
    on_progress: Callable[[SegmentProgress], None] | None = None,
) -> SegmentResult:
    """Segment videos, folders of frames, globs and images into ``out``; bad input is reported and the rest goes on.

    estimator: optical flow for the choice of the foreground; None chooses by the image border alone.
    adaptation: of the model to each clip, before it is segmented; every clip starts from the model as it is.
    Raises InputError when nothing is found, FootageError when no input could be used, StorageError when ``out``
    can not be written or holds something else under a clip's name.
    """
    options = options or SegmentOptions()
    found = discover(inputs)
    segmenter = ClipSegmenter(model.method, estimator, options.clip, roles=model.roles, device=device)
    refiner = build_refiner(options.crf, device=device)
    adapter = build_adapter(model, estimator, adaptation, device=device) if adaptation else None
    results = ResultFolder(location(out))
    results.prepare()
    clips: list[ClipSummary] = []
    rejections = list(found.rejections)
    for number, item in enumerate(found.items):
        report = _reporter(on_progress, item.clip, number, len(found.items))
        try:
            used, record = segmenter, None
            if adapter is not None:
                method, record = adapter.adapt(item, options.decode)
                used = segmenter.with_method(method)
            origin = provenance_of(
                item,
                model,
                options.model_reference,
                adapted_steps=record.num_steps if record and record.skipped is None else None,
                crf=options.crf,
            )
            clips.append(_segment_item(item, model, used, refiner, results, options.decode, report, record, origin))
        except FootageError as error:
            rejections.append(Rejection(source=item.uri, reason=error.reason, detail=error.detail))
    if not clips:
        details = "; ".join(f"{refused.source}: {refused.reason}, {refused.detail}" for refused in rejections)
        raise FootageError(rejections[0].reason, f"none of {len(rejections)} inputs could be used: {details}")
    page = results.write_page(render_overview(clips, rejections, model))
    return SegmentResult(clips=tuple(clips), rejections=tuple(rejections), page=page)


_Report = Callable[[Literal["looking", "writing"], int, int | None], None]


def _segment_item(
    item: FootageItem,
    model: LoadedModel,
    segmenter: ClipSegmenter,
    refiner: MaskRefiner | None,
    out: ResultFolder,
    decode: DecodeOptions,
    report: _Report,
    adaptation: AdaptationRecord | None,
    origin: MaskProvenance,
) -> ClipSummary:
    out.require_free(item.clip)
    started = time.monotonic()
    expected = probe(item).num_frames
    images = (frame.image for frame in iterate_frames(item, decode))
    with prefetched(images, FRAMES_AHEAD) as ahead:
        looked_at = segmenter.segment_clip(ahead, on_frame=lambda done: report("looking", done, expected))
    with looked_at as segments, out.scratch(item.clip) as folder:
        (folder / MASK_FOLDER).mkdir()
        total = segments.num_frames
        summary = write_clip(
            item,
            segments,
            folder,
            decode,
            refiner=refiner,
            provenance=origin,
            on_frame=lambda done: report("writing", done, total),
        )
        summary = replace(summary, seconds=time.monotonic() - started, adaptation=adaptation)
        _describe(folder, summary, model)
        (folder / PROVENANCE_FILE).write_text(origin.to_json(), encoding="utf-8")
        out.publish(folder, item.clip)
    return summary


def _describe(folder: Path, summary: ClipSummary, model: LoadedModel) -> None:
    record = {
        "format": 1,
        "clip": summary.name,
        "source": summary.source,
        "num_frames": summary.num_frames,
        "num_empty_frames": summary.num_empty_frames,
        "foreground": {"segments": list(summary.foreground), "rule": summary.rule, "label_free": True},
        "crf": summary.crf,
        "model": {
            "uri": model.uri,
            "weights_sha256": model.weights_sha256,
            "experiment": model.experiment.name,
            "provenance": model.provenance.model_dump(mode="json"),
        },
        "adaptation": asdict(summary.adaptation) if summary.adaptation else None,
        "seconds": round(summary.seconds, 2),
    }
    (folder / PAGE_FILE).write_text(render_clip(summary, model), encoding="utf-8")
    (folder / RESULT_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _reporter(on_progress: Callable[[SegmentProgress], None] | None, clip: str, number: int, num_clips: int) -> _Report:
    def report(stage: Literal["looking", "writing"], done: int, total: int | None) -> None:
        if on_progress:
            on_progress(
                SegmentProgress(
                    clip=clip,
                    clip_number=number,
                    num_clips=num_clips,
                    stage=stage,
                    frames_done=done,
                    frames_total=total,
                )
            )

    return report
