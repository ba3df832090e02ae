"""The footage that this project renders: videos in ``footage/``, masks of their frames in ``truth/<clip>/masks/``."""

from __future__ import annotations

from tasks.benchmarks.files import require_folder, stem, subfolders
from tasks.benchmarks.types import BenchmarkFamily, BenchmarkSequence, MaskFiles
from tasks.errors import DatasetError
from tasks.footage import FootageItem
from tasks.footage_files import list_folder

_LAYOUT = "footage/*.mp4 and truth/<clip>/masks/*.png"


def _read(root: str) -> dict[str, BenchmarkSequence]:
    """Pair videos with the masks of their frames, in order."""
    footage = require_folder(f"{root}/footage", "rendered", _LAYOUT)
    truth = require_folder(f"{root}/truth", "rendered", _LAYOUT)
    with_truth = subfolders(truth)
    sequences = {}
    for video in list_folder(footage).videos:
        name = stem(video)
        if name in with_truth:
            masks = list_folder(require_folder(f"{truth}/{name}/masks", "rendered", _LAYOUT)).images
            sequences[name] = BenchmarkSequence(
                name=name,
                footage=FootageItem(uri=video, clip=name, kind="video"),
                annotations=tuple(MaskFiles(addresses=(mask,)) for mask in masks),
            )
    if not sequences:
        raise DatasetError(f"{footage}: expected videos with masks of the same name in {truth}")
    return sequences


RENDERED = BenchmarkFamily(read=_read)
