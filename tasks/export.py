"""A dataset version as files that other tools read: WebDataset tars, or the folders of DAVIS.

``webdataset``, one sample a frame, keyed ``<clip>/<frame>``::

    gwm-000000.tar    fox/00000.jpg  fox/00000.png  fox/00000.flow_p1.npy  fox/00000.json  fox/00001.jpg ...

``frames``, which ``gwm ingest`` and the benchmarks' own code read (``.flo`` is named by the frame that it leads from)::

    JPEGImages/<clip>/00000.jpg  Annotations/<clip>/00000.png  Flows_gap1/<clip>/00000.flo  Flows_gap-1/<clip>/00001.flo

Pictures and masks are the stored bytes; flow is float32 in pixels. The same version gives the same bytes. Parts that
are there are not written again, so an export that was cut short goes on; ``gwm_export.json`` appears when all are.
One frame a thread is in memory, and one tar under way lies on the local disk.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tasks.export_files import columns_of, davis_files, sample_files
from tasks.export_plan import MANIFEST_FILE, ExportPart, ExportPlan, agree_on_plan, plan_export
from tasks.snapshot import DatasetSnapshot
from tasks.storage import Location, prove_writable
from tasks.stored_rows import read_rows

DEFAULT_TAR_BYTES = 1_000_000_000
"""Of one tar: WebDataset's documentation recommends shards of about a gigabyte."""

_THREADS = 4  # a part each: reading and writing wait, decoding flow runs outside the interpreter's lock
_STAGING = ".gwm_export.partial"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export left. num_written: parts written now; the others were there already."""

    uri: str
    output: str
    num_parts: int
    num_written: int
    num_frames: int


def export_dataset(
    snapshot: DatasetSnapshot,
    target: Location,
    *,
    output: str,
    gaps: Sequence[int] | None = None,
    max_tar_bytes: int = DEFAULT_TAR_BYTES,
    on_progress: Progress = lambda done, total, note: None,
) -> ExportSummary:
    """Write a version of a dataset into ``target``, an empty place or one where the same export was begun.

    gaps: whose flow is written; None takes those that every clip has, () none. on_progress: frames done, frames in all,
    and the part that was finished. Raises InputError, DatasetError and StorageError before anything is written when
    that can not be; DatasetError when a shard can not be read.
    """
    plan = plan_export(snapshot, output, gaps, max_tar_bytes=max_tar_bytes)
    prove_writable(target)
    agree_on_plan(target, plan)
    writer = _write_tar if output == "webdataset" else _write_clip
    num_written = frames_done = 0

    def write(part: ExportPart) -> bool:
        return writer(snapshot, target, part, plan)

    waiting = iter(plan.parts)
    with ThreadPoolExecutor(_THREADS) as threads:
        while batch := list(islice(waiting, _THREADS)):
            for part, is_new in zip(batch, threads.map(write, batch), strict=True):
                num_written += is_new
                frames_done += part.num_frames
                on_progress(frames_done, snapshot.num_frames, part.name)
    if target.is_local:
        shutil.rmtree(target.local_path / _STAGING, ignore_errors=True)
    (target / MANIFEST_FILE).write_bytes(json.dumps(plan.description, indent=1).encode())
    return ExportSummary(
        uri=target.uri,
        output=output,
        num_parts=len(plan.parts),
        num_written=num_written,
        num_frames=snapshot.num_frames,
    )


def _write_tar(snapshot: DatasetSnapshot, target: Location, part: ExportPart, plan: ExportPlan) -> bool:
    """Write one tar unless it is there; it appears whole."""
    place = target / part.name
    if place.exists():
        return False
    with tempfile.TemporaryDirectory(prefix="gwm-export-") as folder:
        file = Path(folder) / part.name
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
            for span in part.spans:
                rows = read_rows(snapshot.frames, span.clip, columns_of(plan.gaps), frames=range(span.start, span.stop))
                for row in rows:
                    for extension, data in sample_files(span.clip, row, plan.gaps):
                        _add(tar, f"{span.clip.clip}/{row['frame_index']:05d}.{extension}", data)
        return place.upload_new(file)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without the time, the user and the rights of whoever exports."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _write_clip(snapshot: DatasetSnapshot, target: Location, part: ExportPart, plan: ExportPlan) -> bool:
    """Write the folders of one clip unless they are there."""
    (span,) = part.spans
    name = span.clip.clip
    last = f"{span.stop - 1:05d}.jpg"
    pictures = target / "JPEGImages" / name
    if (pictures / last).exists():  # written last of all
        return False
    root = target / _STAGING / name if target.is_local else target
    folders: set[str] = set()
    if target.is_local:
        root.delete()
    for row in read_rows(snapshot.frames, span.clip, columns_of(plan.gaps)):
        for folder, file, data in davis_files(row, plan.gaps):
            place = root / folder / file if target.is_local else root / folder / name / file
            place.write_bytes(data)
            folders.add(folder)
    if target.is_local:
        _move_folders(root.local_path, target.local_path, name, folders)
    return True


def _move_folders(staged: Path, target: Path, name: str, folders: set[str]) -> None:
    """Give the folders of a complete clip their places, pictures last: who sees those sees the rest as well."""
    for folder in sorted(folders, key=lambda folder: folder == "JPEGImages"):
        place = target / folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)  # of an attempt that was cut short between two moves
        (staged / folder).rename(place)
    staged.rmdir()
