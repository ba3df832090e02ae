"""Files of benchmarks: folders that must be there, files by extension, the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from tasks.benchmarks.types import BenchmarkSequence, MaskFiles
from tasks.errors import DatasetError
from tasks.footage import FootageItem
from tasks.footage_files import base_name, child_uri, extension, list_folder, natural_key
from tasks.storage import fsspec_view

_SHOWN = 8
"""Names that a message lists before it says how many more there are."""


def is_folder(address: str) -> bool:
    """Whether there is a folder at a path or URI."""
    filesystem, path = fsspec_view(address)
    return bool(filesystem.isdir(path))


def require_folder(address: str, benchmark: str, layout: str) -> str:
    """Return ``address``; raise DatasetError naming it when there is no such folder."""
    if not is_folder(address):
        raise DatasetError(f"benchmark {benchmark}: no folder {address}; expected {layout} below the root")
    return address


def subfolders(address: str) -> dict[str, str]:
    """Return the addresses of the folders in a folder by their names, in natural order."""
    return {base_name(folder): folder for folder in list_folder(address).folders}


def files_ending(address: str, extensions: Iterable[str]) -> tuple[str, ...]:
    """Return the files of a folder whose lower-case extension, with its dot, is one of ``extensions``."""
    filesystem, path = fsspec_view(address)
    wanted = frozenset(extensions)
    files = [child_uri(address, str(name)) for name in filesystem.ls(path, detail=False)]
    visible = [file for file in files if not base_name(file).startswith(".")]
    return tuple(sorted((file for file in visible if extension(file) in wanted), key=natural_key))


def stem(address: str) -> str:
    """Return a file's name without its extension."""
    return PurePosixPath(base_name(address)).stem


def last_number(name: str) -> int | None:
    """Return the last integer in a name: 20 for ``camel01_0020``; None when there is none."""
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else None


def frame_folder_sequence(name: str, frames: str, masks: dict[str, tuple[str, ...]]) -> BenchmarkSequence:
    """Return a folder of frames as a sequence.

    masks: files of the mask of a frame by the stem of the frame's name.
    """
    found = [masks.get(stem(frame)) for frame in list_folder(frames).images]
    return BenchmarkSequence(
        name=name,
        footage=FootageItem(uri=frames, clip=name, kind="frames"),
        annotations=tuple(None if files is None else MaskFiles(addresses=files) for files in found),
    )


def annotated_folders(images: str, masks: str) -> dict[str, BenchmarkSequence]:
    """Return the folders of frames in ``images`` that have a folder of masks in ``masks``, by their common names.

    A mask belongs to the frame of its name. Raises DatasetError when there is no such pair of folders.
    """
    annotated = subfolders(masks)
    found = {
        name: frame_folder_sequence(name, folder, {stem(mask): (mask,) for mask in list_folder(annotated[name]).images})
        for name, folder in subfolders(images).items()
        if name in annotated
    }
    if not found:
        raise DatasetError(f"{images}: expected folders of frames, and folders of the same names in {masks}")
    return found


def shortened(names: Sequence[object]) -> str:
    """Join names for a message, at most eight of them."""
    rest = len(names) - _SHOWN
    return ", ".join(str(name) for name in names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def unnumbered(frames: Sequence[str]) -> str:
    """Say which numbers are missing between a folder's first and last file, as far as their names tell."""
    numbers = sorted({number for frame in frames if (number := last_number(stem(frame))) is not None})
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)) if numbers else []
    return f" (missing: {shortened(missing)})" if missing else ""
