"""Flow ``segment-footage``: anybody's footage and a model become masks, overlays and a page."""

from __future__ import annotations

from typing import Any

from prefect import flow, task

from pipelines.evaluate import find_model
from pipelines.progress import Progress, publish_table
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import load_settings
from tasks.adapt import AdaptationOptions
from tasks.devices import own_device
from tasks.model_package import load_model
from tasks.optical_flow import build_estimator
from tasks.registry import find_version
from tasks.segment import SegmentOptions, SegmentProgress, SegmentResult, segment
from tasks.storage import location


@flow(name="segment-footage")
def segment_footage(
    inputs: list[str],
    model: str,
    out: str,
    estimator: str | None = "dis",
    weights: str | None = None,
    crf: str | None = None,
) -> dict[str, Any]:
    """Segment videos, folders of frames, globs and images into the folder ``out``, a path or a URI.

    estimator: optical flow for the choice of the foreground; None chooses by the image border alone.
    crf: refines masks by a dense CRF: gwm or rcf.
    Returns a row per clip, the rejected inputs with their reasons, and the page to look at.
    """
    reference = name_model(model)
    folder = find_model(reference)
    result = segment_clips(inputs, folder, out, estimator, weights, crf=crf, reference=reference)
    publish_clips(result)
    return result


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def name_model(model: str) -> str:
    """Return the reference that will name the same model for ever: of an alias, the version that bears it now."""
    return find_version(model, load_settings()).reference if model.startswith("models:/") else model


@task(retries=1, retry_delay_seconds=10, **NOT_FOR_BAD_INPUT)
def segment_clips(
    inputs: list[str],
    folder: str,
    out: str,
    estimator: str | None,
    weights: str | None,
    adaptation: AdaptationOptions | None = None,
    crf: str | None = None,
    reference: str | None = None,
) -> dict[str, Any]:
    """Segment clip by clip, in constant memory.

    adaptation: of the model to each clip before. reference: what the provenance of the masks calls the model.
    """
    device = own_device(load_settings())
    with Progress("segment", key="segment") as progress:
        result = segment(
            inputs,
            load_model(folder, device=device),
            out,
            estimator=build_estimator(estimator, weights, device=device) if estimator else None,
            options=SegmentOptions(crf=crf, model_reference=reference),
            device=device,
            adaptation=adaptation,
            on_progress=lambda now: progress(*_position(now)),
        )
    return {"clips": _rows(result, out), "page": result.page, "num_rejected": len(result.rejections)}


@task
def publish_clips(result: dict[str, Any]) -> None:
    """Leave a table of clips with the flow run."""
    publish_table(result["clips"], key="clips", description=f"Segmented; the page is {result['page']}")


def _position(now: SegmentProgress) -> tuple[int, int, str]:
    """Every clip is looked at and then written; its share of the whole is one unit in a thousand steps."""
    share = now.frames_done / now.frames_total if now.frames_total else 0.0
    done = now.clip_number + min(1.0, (share + (now.stage == "writing")) / 2)
    return int(1000 * done), 1000 * now.num_clips, f"{now.clip}: {now.stage}, frame {now.frames_done}"


def _rows(result: SegmentResult, out: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "clip": clip.name,
            "frames": clip.num_frames,
            "status": clip.adaptation.sentence if clip.adaptation else "done",
            "result": (location(out) / clip.name).uri,
        }
        for clip in result.clips
    ]
    rows += [
        {"clip": item.source, "frames": None, "status": f"rejected: {item.reason}", "result": item.detail}
        for item in result.rejections
    ]
    return rows
