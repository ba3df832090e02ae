"""From a mask, a model or a stored frame back to the footage it came from, link by link.

::

    mask -> footage it shows (SHA-256, whether that is still there)
         -> model -> training run -> dataset and version -> shards -> videos (SHA-256) -> sources

Nothing is guessed: what was not written down, or can not be reached from here, is a link with a ``problem``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.catalog import open_dataset
from tasks.errors import GwmError, ModelNotFoundError, StorageError
from tasks.mask_provenance import MaskProvenance
from tasks.model_package import Provenance, read_description
from tasks.registry import resolve_model, versions_of_run
from tasks.settings import Settings
from tasks.snapshot import DatasetPin, DatasetSnapshot, StoredClip
from tasks.source_check import check_source
from tasks.storage import Location, location
from tasks.stored_rows import read_rows, shard_of_frame

LinkKind = Literal["mask", "frame", "footage", "model", "run", "dataset", "shard", "video", "source"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """One step of a chain. facts: what is known of it; problem: what is missing, or does not hold."""

    kind: LinkKind
    name: str
    facts: Mapping[str, Any]
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainedClip:
    """A clip that a model was trained on. shards: file names below the dataset's folder of frames."""

    dataset: str
    clip: str
    video_id: str
    source: str
    num_frames: int
    shards: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A chain, and the clips at its end."""

    target: str
    links: tuple[Link, ...]
    clips: tuple[TrainedClip, ...] = ()


def trace_mask(place: Location, provenance: MaskProvenance, settings: Settings) -> Trace:
    """Follow what a mask, or the folder of a clip's masks, says of itself."""
    made_by = provenance.model
    facts = {
        "clip": provenance.clip,
        "frame": provenance.frame,
        "made by": provenance.project_version,
        "adapted to the clip": provenance.adapted_steps and f"{provenance.adapted_steps} steps",
        "refined by CRF": provenance.crf,
    }
    model = _model_link(made_by.reference, made_by.weights_sha256, made_by.experiment, made_by.provenance)
    links = [Link(kind="mask", name=place.uri, facts=_known(facts)), _footage_link(provenance), model]
    links += _training_links(made_by.provenance, settings)
    pinned, clips = _dataset_links(made_by.provenance)
    shown = [clip for clip in clips if clip.video_id == provenance.source_sha256]
    if shown:
        note = {"this footage itself": ", ".join(f"{clip.dataset}/{clip.clip}" for clip in shown)}
        pinned[0] = Link(kind="dataset", name=pinned[0].name, facts={**pinned[0].facts, **note})
    return Trace(target=place.uri, links=(*links, *pinned), clips=clips)


def trace_model(reference: str, settings: Settings) -> Trace:
    """Follow what a model says of its training. Raises ModelNotFoundError that lists what exists."""
    description = read_description(location(resolve_model(reference, settings)))
    provenance = Provenance.model_validate(description["provenance"])
    model = _model_link(reference, description["weights_sha256"], description["experiment"]["name"], provenance)
    pinned, clips = _dataset_links(provenance)
    return Trace(target=reference, links=(model, *_training_links(provenance, settings), *pinned), clips=clips)


def trace_frame(snapshot: DatasetSnapshot, clip: StoredClip, frame: int) -> Trace:
    """Follow a stored frame to its shard, its video and its source. Raises DatasetError for no such frame."""
    shard = shard_of_frame(clip, frame)
    place = snapshot.frames / shard.path
    shard_facts = {"row": frame - shard.first_frame, "rows": shard.num_rows, "bytes": shard.num_bytes}
    facts: dict[str, Any] = {"clip": clip.clip, "frame": frame, "size": f"{clip.width}x{clip.height}"}
    problem = None
    try:
        facts |= next(iter(read_rows(snapshot.frames, clip, ("time_seconds",), frames=(frame,))))
    except GwmError as error:
        problem = str(error)
    recipe = clip.recipe.model_dump(mode="json", exclude_none=True)
    checked = check_source(clip.source, clip.video_id)
    links = (
        Link(kind="frame", name=f"{snapshot.uri}/{clip.clip}/{frame}", facts=facts),
        Link(kind="dataset", name=str(snapshot.pin), facts=_totals(snapshot)),
        Link(kind="shard", name=place.uri, facts=shard_facts, problem=problem),
        Link(kind="video", name=clip.video_id, facts={"shot": clip.shot, "recipe": clip.recipe_hash, **recipe}),
        Link(
            kind="source",
            name=clip.source,
            facts={"state": checked.state},
            problem=None if checked.state == "same" else checked.detail,
        ),
    )
    return Trace(target=links[0].name, links=links)


def _footage_link(provenance: MaskProvenance) -> Link:
    checked = check_source(provenance.source, provenance.source_sha256)
    return Link(
        kind="footage",
        name=provenance.source,
        facts={"sha256": provenance.source_sha256, "state": checked.state},
        problem=None if checked.state == "same" else checked.detail,
    )


def _model_link(reference: str, weights_sha256: str, experiment: str, provenance: Provenance) -> Link:
    facts = {
        "weights sha256": weights_sha256,
        "experiment": experiment,
        "step": provenance.step,
        "code": provenance.code_version,
        "created": provenance.created,
        "started from": provenance.initial_model,
    }
    return Link(kind="model", name=reference, facts=_known(facts))


def _training_links(provenance: Provenance, settings: Settings) -> list[Link]:
    """The run that trained the model, and the names that it is registered under."""
    if provenance.mlflow_run_id is None:
        missing = "the model names no MLflow run: it was not trained by gwm train"
        return [Link(kind="run", name="unknown", facts={}, problem=missing)]
    facts: dict[str, Any] = _known({"training": provenance.training_id})
    try:
        versions = versions_of_run(settings, provenance.mlflow_run_id)
    except (StorageError, ModelNotFoundError) as error:
        return [
            Link(kind="run", name=provenance.mlflow_run_id, facts=facts, problem=f"MLflow can not be asked: {error}")
        ]
    facts["registered as"] = ", ".join(version.reference for version in versions) or "not registered in this MLflow"
    return [Link(kind="run", name=provenance.mlflow_run_id, facts=facts)]


def _dataset_links(provenance: Provenance) -> tuple[list[Link], tuple[TrainedClip, ...]]:
    """The datasets that a model was trained on, each with its version, and their clips."""
    if provenance.dataset_uri is None or provenance.dataset_version is None:
        missing = "the model does not say what it was trained on"
        return [Link(kind="dataset", name="unknown", facts={}, problem=missing)], ()
    first = DatasetPin(uri=provenance.dataset_uri, version=provenance.dataset_version)
    links: list[Link] = []
    clips: list[TrainedClip] = []
    for pin in (first, *provenance.joint_datasets):
        try:
            snapshot = open_dataset(pin.uri, pin.version)
        except GwmError as error:
            links.append(Link(kind="dataset", name=str(pin), facts={}, problem=str(error)))
            continue
        links.append(Link(kind="dataset", name=str(pin), facts=_totals(snapshot)))
        clips += [_trained_clip(snapshot, clip) for clip in snapshot.clips]
    return links, tuple(clips)


def _trained_clip(snapshot: DatasetSnapshot, clip: StoredClip) -> TrainedClip:
    return TrainedClip(
        dataset=snapshot.uri,
        clip=clip.clip,
        video_id=clip.video_id,
        source=clip.source,
        num_frames=clip.num_frames,
        shards=tuple(shard.path for shard in clip.shards),
    )


def _totals(snapshot: DatasetSnapshot) -> dict[str, Any]:
    num_shards = sum(len(video.shards) for video in snapshot.videos)
    return {
        "videos": len(snapshot.videos),
        "clips": len(snapshot.clips),
        "frames": snapshot.num_frames,
        "shards": num_shards,
    }


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
