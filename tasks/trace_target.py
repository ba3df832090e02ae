"""What ``gwm trace`` was given: a mask, a model or a stored frame.

===========================================================  ======================================================
``models:/NAME/3``, ``models:/NAME@alias``, ``runs:/ID``     a model; so is a folder with ``model.json``
``....png``, or the folder of a clip that segment wrote      a mask
``DATASET/CLIP/INDEX``, ``DATASET/VIDEO_ID/INDEX``           a frame; eight digits of the SHA-256 or more will do
===========================================================  ======================================================
"""

from __future__ import annotations

import re

from tasks.catalog import dataset_exists, open_dataset
from tasks.errors import DatasetError, InputError
from tasks.mask_provenance import PROVENANCE_FILE, MaskProvenance, parse_provenance, read_chunk
from tasks.model_package import is_model
from tasks.registry import ARTIFACT_NAME
from tasks.settings import Settings
from tasks.snapshot import DatasetSnapshot, StoredClip
from tasks.storage import Location, location
from tasks.trace import Trace, trace_frame, trace_mask, trace_model

_FRAME = re.compile(r"^(?P<dataset>.+)/(?P<clip>[^/]+)/(?P<frame>\d+)$")
_ID_DIGITS = re.compile(r"^[0-9a-f]{8,64}$")
_EXPECTED = (
    "a mask (a PNG of gwm segment, or the folder of its clip), a model (models:/NAME/3, models:/NAME@alias, runs:/ID "
    "or a folder), or a frame (DATASET/CLIP/INDEX)"
)


def trace(target: str, settings: Settings, *, version: int | None = None) -> Trace:
    """Find out what ``target`` names and follow it back to footage.

    version: of the dataset that a frame is looked up in, the newest unless told. Raises InputError for what is none of
    these or a mask that says nothing of itself, DatasetError for a frame that is not there, ModelNotFoundError.
    """
    if target.startswith(("models:/", "runs:/")):
        return trace_model(target, settings)
    place = location(target)
    if place.name.lower().endswith(".png"):
        return trace_mask(place, provenance_of_file(place), settings)
    folder = next((each for each in _folders(place) if (each / PROVENANCE_FILE).exists()), None)
    if folder is not None:
        file = folder / PROVENANCE_FILE
        return trace_mask(folder, parse_provenance(file.read_bytes(), file.uri), settings)
    if is_model(place) or is_model(place / ARTIFACT_NAME):
        return trace_model(target, settings)
    named = _FRAME.match(place.uri)
    if named and dataset_exists(named["dataset"]):
        snapshot = open_dataset(named["dataset"], version)
        return trace_frame(snapshot, find_clip(snapshot, named["clip"]), int(named["frame"]))
    raise InputError(f"gwm trace {target}: nothing of ours is there; expected {_EXPECTED}")


def provenance_of_file(place: Location) -> MaskProvenance:
    """Return what a PNG bears, or what lies beside its folder. Raises InputError when neither says anything."""
    found = read_chunk(place.read_bytes(), place.uri)
    if found is not None:
        return found
    for folder in _folders(Location(uri=place.uri.rpartition("/")[0])):
        file = folder / PROVENANCE_FILE
        if file.exists():
            return parse_provenance(file.read_bytes(), file.uri)
    raise InputError(
        f"{place.uri} does not say where it comes from: gwm segment of an earlier release wrote it, or a tool that "
        f"drops text from PNGs rewrote it, and no {PROVENANCE_FILE} lies beside its folder; segment the footage again"
    )


def find_clip(snapshot: DatasetSnapshot, name: str) -> StoredClip:
    """Return the clip of that name, or of that SHA-256, of which eight digits or more suffice when one clip fits.

    Raises DatasetError for none or several.
    """
    for clip in snapshot.clips:
        if clip.clip == name:
            return clip
    is_id = _ID_DIGITS.match(name) is not None
    fitting = [clip for clip in snapshot.clips if is_id and clip.video_id.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DatasetError(
            f"{snapshot.pin} has {len(fitting)} clips of video {name}: name one of "
            f"{', '.join(clip.clip for clip in fitting)}"
        )
    some = ", ".join(clip.clip for clip in snapshot.clips[:10])
    raise DatasetError(f"{snapshot.pin} has no clip {name!r}; it has {len(snapshot.clips)}, such as {some}")


def _folders(place: Location) -> tuple[Location, ...]:
    """The folder of a clip's masks may be named, or that of the clip around it."""
    return place, Location(uri=place.uri.rpartition("/")[0] or place.uri)
