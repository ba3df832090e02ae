"""What a benchmark is: sequences of frames with masks for some of them, and how published numbers average them.

Addresses only, so that all of it travels between processes; one frame or mask is read at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.decode import DecodeOptions, iterate_frames
from tasks.errors import FootageError
from tasks.footage import FootageItem
from tasks.footage_files import base_name, open_footage
from tasks.frame_images import decode_annotation
from tasks.pictures import Picture

MaskDecoder = Callable[[bytes, str], NDArray[np.bool_]]
"""Turns the bytes of a file, and its name for messages, into a mask [H, W], true for foreground."""


@dataclass(frozen=True, kw_only=True)
class MaskFiles:
    """The mask of one frame: what any of its files marks. Several files: one for each object of the frame."""

    addresses: tuple[str, ...]
    decode: MaskDecoder = decode_annotation

    def read(self) -> NDArray[np.bool_]:
        """Return the union of the files' masks, bool [H, W].

        Decoded in this process, unlike footage: whoever evaluates chose the benchmark, and pixels are limited by the
        header before any is decoded (``tasks/frame_images.py``), as Pillow limits text. Masks that come with footage
        are decoded apart, as that is.
        Raises FootageError: "corrupt" for a file that is no mask, "too_large" beyond the limit on pixels,
        "annotation_mismatch" when files differ in size.
        """
        masks = []
        for address in self.addresses:
            with open_footage(address) as file:
                masks.append(self.decode(file.read(), base_name(address)))
            if masks[-1].shape != masks[0].shape:
                raise FootageError(
                    "annotation_mismatch",
                    f"{address} is {masks[-1].shape} (rows, columns), {self.addresses[0]} is {masks[0].shape}: "
                    "expected the masks of one frame to have one size",
                )
        union: NDArray[np.bool_] = np.logical_or.reduce(masks)
        return union


@dataclass(frozen=True, kw_only=True)
class BenchmarkSequence:
    """One clip with annotations.

    annotations: files of the mask of each frame, None for a frame without one.
    """

    name: str
    footage: FootageItem
    annotations: tuple[MaskFiles | None, ...]

    def frames(self) -> Iterator[Picture]:
        """Yield the frames in order, uint8 RGB [H, W, 3]."""
        for frame in iterate_frames(self.footage, DecodeOptions()):
            yield frame.image

    def annotation(self, frame: int) -> NDArray[np.bool_] | None:
        """Return the mask [H, W] of a frame; None where there is none.

        Raises FootageError for a mask that can not be read.
        """
        files = self.annotations[frame] if frame < len(self.annotations) else None
        return files.read() if files is not None else None

    @property
    def num_annotated(self) -> int:
        """How many frames have a mask."""
        return sum(files is not None for files in self.annotations)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Sequences to score a model on, under the name that numbers are filed under.

    published: names of all sequences that published numbers average; empty where nothing is published.
    headline_protocol: how the headline is averaged, a key of ``model.metrics.PROTOCOLS``.
    saliency_gaps: frame gaps whose optical flow shows what moves; None leaves them to ``ClipOptions``.
    notes: how what was found differs from what is published, in words.
    """

    name: str
    root: str
    sequences: tuple[BenchmarkSequence, ...]
    published: tuple[str, ...] = ()
    headline_protocol: str = "gwm"
    saliency_gaps: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def coverage(self) -> str:
        """How much of the published benchmark is scored, such as ``10 of 20 sequences``."""
        return coverage([sequence.name for sequence in self.sequences], self.published)


@dataclass(frozen=True, kw_only=True)
class BenchmarkFamily:
    """A dataset that models are scored on, wherever a copy of it lies.

    read: opens everything in a folder or URI; sequences by name. Raises DatasetError naming a folder that is missing.
    check: compares the sequences that were chosen with the published counts; returns notes, raises DatasetError.
    published, headline_protocol, saliency_gaps: see ``Benchmark``.
    """

    read: Callable[[str], dict[str, BenchmarkSequence]]
    check: Callable[[Mapping[str, BenchmarkSequence]], tuple[str, ...]] = lambda chosen: ()
    published: tuple[str, ...] = ()
    headline_protocol: str = "gwm"
    saliency_gaps: tuple[int, ...] | None = None


def coverage(names: list[str], published: tuple[str, ...], what: str = "sequence") -> str:
    """Say how many of the published sequences, or other things, ``names`` are."""
    if not published:
        return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"
    others = len(set(names) - set(published))
    return f"{len(names) - others} of {len(published)} {what}s" + (f", {others} others" if others else "")
