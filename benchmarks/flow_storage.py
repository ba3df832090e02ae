"""Optical flow in storage: ours against ``.flo`` files and against half floats in plain Parquet, on real footage.

DIS flow of five frames from each of three DAVIS sequences, 480x854, gaps 1, -1, 2, -2. Three questions: bytes and time
of a flow in memory; bytes and time of one flow drawn at random from files; and of a training sample, frame and flow.
All files are in the page cache, so that reading costs processor time and not the disk's; a disk or an object store
adds its time per byte. The Parquet peer gets a row group a frame as ours has: with Parquet's default of a million rows
it would read all flows to return one.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.footage import davis_frames
from benchmarks.timing import best_seconds, print_ratios
from model.types import FramePair
from tasks.catalog import open_dataset, publish
from tasks.dataset import FrameReader
from tasks.flow_codec import MAX_ERROR_PX, decode_flow, encode_flow
from tasks.ingest import make_recipe, prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.schema import flow_column

SEQUENCES, NUM_FRAMES, GAPS = ("blackswan", "breakdance", "scooter-black"), 5, (1, -1, 2, -2)
FLO, HALF, OURS = ".flo file (peer)", "float16, plain Parquet", "ours"
Flow = NDArray[np.float32]
Key = tuple[int, int, int]
"""Clip, frame and gap."""

T = TypeVar("T")


def link_footage(folder: Path) -> Path:
    """Return a folder of the sequences' first frames, as ingest takes them."""
    for sequence in SEQUENCES:
        (folder / sequence).mkdir(parents=True)
        for path in davis_frames(sequence, NUM_FRAMES):
            shutil.copy(path, folder / sequence / path.name)
    return folder


def ingest(footage: Path, dataset: str) -> FrameReader:
    """Ingest in this process, and return a reader of what came of it."""
    recipe = make_recipe(flow_estimator="dis", gaps=GAPS)
    worker = IngestWorker(IngestJob(dataset_uri=dataset, recipe=recipe))
    done = [worker.run(video) for video in prepare_ingest([str(footage)], dataset, recipe).to_ingest]
    publish(dataset, [shard for work in done for shard in work.shards])
    return FrameReader(open_dataset(dataset))


def write_flo(path: Path, flow: Flow) -> None:
    """Write Middlebury's format: magic, width, height, then u and v of each pixel in turn."""
    header = np.float32(202021.25).tobytes() + np.int32([flow.shape[2], flow.shape[1]]).tobytes()
    path.write_bytes(header + np.ascontiguousarray(flow.transpose(1, 2, 0)).tobytes())


def read_flo(data: bytes) -> Flow:
    """Return float32 [2, H, W] of the bytes of a ``.flo`` file."""
    width, height = np.frombuffer(data, np.int32, 2, offset=4)
    return np.ascontiguousarray(np.frombuffer(data, np.float32, offset=12).reshape(height, width, 2).transpose(2, 0, 1))


def one_by_one(work: Callable[[T], object], items: Sequence[T]) -> None:
    """Do all, keeping no result: else the memory for them would be what is measured."""
    for item in items:
        work(item)


class Peers:
    """The flows of a dataset once more, as files of the two other kinds."""

    def __init__(self, reader: FrameReader, footage: Path, dataset: Path, folder: Path) -> None:
        folder.mkdir()
        shards = [pq.ParquetFile(path) for path in (dataset / "frames").glob("*.parquet")]
        by_clip = {shard.read_row_group(0, columns=["clip"]).column(0)[0].as_py(): shard for shard in shards}
        self.shards = [by_clip[reader.clip_name(clip)] for clip in range(len(reader.clips))]
        self.keys = [
            (clip, frame, gap)
            for clip, index in enumerate(reader.clips)
            for frame in range(index.num_frames)
            for gap in GAPS
            if 0 <= frame + gap < index.num_frames
        ]
        self.flows = {key: reader.read_pair(*key).flow.numpy() for key in self.keys}
        self.images = {clip: sorted((footage / reader.clip_name(clip)).iterdir()) for clip in range(len(reader.clips))}
        self._folder, self._size = folder, next(iter(self.flows.values())).shape
        for key, flow in self.flows.items():
            write_flo(self.flo_path(*key), flow)
        for clip, index in enumerate(reader.clips):
            rows = [
                {flow_column(gap): self._half(clip, frame, gap) for gap in GAPS} for frame in range(index.num_frames)
            ]
            schema = pa.schema([(flow_column(gap), pa.binary()) for gap in GAPS])
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{clip}.parquet", row_group_size=1)
        self.files = [pq.ParquetFile(folder / f"{clip}.parquet") for clip in range(len(reader.clips))]

    def flo_path(self, clip: int, frame: int, gap: int) -> Path:
        return self._folder / f"{clip}-{frame}-{gap}.flo"

    def read_half(self, clip: int, frame: int, gap: int) -> Flow:
        """Read one flow of the half-float Parquet file."""
        table = self.files[clip].read_row_group(frame, columns=[flow_column(gap)], use_threads=False)
        return np.frombuffer(table.column(0)[0].as_py(), np.float16).reshape(self._size).astype(np.float32)

    def read_ours(self, clip: int, frame: int, gap: int) -> Flow:
        """Read one flow of the dataset's own shard in the same way."""
        table = self.shards[clip].read_row_group(frame, columns=[flow_column(gap)], use_threads=False)
        return decode_flow(table.column(0)[0].as_buffer())

    def half_bytes(self) -> float:
        """Mean bytes of a flow in the half-float Parquet file, compressed as Parquet does unless told otherwise."""
        sizes = [
            file.metadata.row_group(row).column(column).total_compressed_size
            for file in self.files
            for row in range(file.metadata.num_row_groups)
            for column in range(len(GAPS))
        ]
        return sum(sizes) / len(self.keys)

    def _half(self, *key: int) -> bytes | None:
        flow = self.flows.get((key[0], key[1], key[2]))
        return None if flow is None else flow.astype(np.float16).tobytes()


def compare_in_memory(flows: list[Flow]) -> None:
    """Print bytes, time and error of a flow as bytes."""
    halves, stored = [flow.astype(np.float16) for flow in flows], [encode_flow(flow) for flow in flows]
    kilobytes = {".flo": flows[0].nbytes / 1e3, "ours": np.mean([len(data) for data in stored]) / 1e3}
    largest = max(len(data) for data in stored) / 1e3
    error = max(np.abs(half.astype(np.float32) - flow).max() for half, flow in zip(halves, flows, strict=True))
    print(
        f"{len(flows)} flows: .flo {kilobytes['.flo']:.0f} kB, ours {kilobytes['ours']:.0f} kB, largest {largest:.0f}"
    )
    print(
        f"  {kilobytes['.flo'] / kilobytes['ours']:.1f} times smaller; at most {MAX_ERROR_PX} px off, float16 {error}"
    )
    count = len(flows)
    each = best_seconds(
        {
            "encode": lambda: one_by_one(encode_flow, flows),
            "decode": lambda: one_by_one(decode_flow, stored),
            "float16 to float32": lambda: one_by_one(lambda half: half.astype(np.float32), halves),
        },
        rounds=3,
        clock=time.process_time,
    )
    print("  " + ", ".join(f"{name} {seconds / count * 1e3:.2f} ms" for name, seconds in each.items()))


def compare_random_reads(peers: Peers, order: list[Key]) -> None:
    """Print bytes and time of one flow read at random."""
    sizes = {
        FLO: peers.flo_path(*order[0]).stat().st_size,
        HALF: peers.half_bytes(),
        OURS: np.mean([len(encode_flow(flow)) for flow in peers.flows.values()]),
    }
    print("bytes of a flow in its file: " + ", ".join(f"{name} {size / 1e3:.0f} kB" for name, size in sizes.items()))
    seconds = best_seconds(
        {
            FLO: lambda: one_by_one(lambda key: read_flo(peers.flo_path(*key).read_bytes()), order),
            HALF: lambda: one_by_one(lambda key: peers.read_half(*key), order),
            OURS: lambda: one_by_one(lambda key: peers.read_ours(*key), order),
        },
        rounds=3,
        clock=time.process_time,
    )
    print_ratios(
        "one flow at random, 1 thread, processor time", {k: v / len(order) for k, v in seconds.items()}, peer=FLO
    )


def compare_samples(reader: FrameReader, peers: Peers, order: list[Key]) -> None:
    """Print the time of a sample: a frame and its flow, as tensors.

    The released loader reads two gaps, each at two sizes: four files of 3.3 MB a sample. A leaner one reads one.
    """

    def from_files(key: Key, num_reads: int) -> FramePair:
        clip, frame, gap = key
        image = cv2.imread(str(peers.images[clip][frame]), cv2.IMREAD_COLOR_RGB)
        for _ in range(num_reads):
            flow = np.fromfile(peers.flo_path(clip, frame, gap), np.float32, offset=12).reshape(*image.shape[:2], 2)
            resized = cv2.resize(flow, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)  # whatever size it has
        chw = [torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))) for array in (image, resized)]
        return FramePair(image=chw[0], flow=chw[1], gap=gap)

    mine, theirs = reader.read_pair(*order[0]), from_files(order[0], 1)
    assert torch.equal(mine.image, theirs.image)
    assert torch.equal(mine.flow, theirs.flow)
    released = "JPEG and 4 .flo, as released (peer)"
    seconds = best_seconds(
        {
            released: lambda: one_by_one(lambda key: from_files(key, 4), order),
            "JPEG and 1 .flo": lambda: one_by_one(lambda key: from_files(key, 1), order),
            OURS: lambda: one_by_one(lambda key: reader.read_pair(*key), order),
        },
        rounds=3,
        clock=time.process_time,
    )
    title = "a training sample, frame and one flow, 1 thread, processor time"
    print_ratios(title, {k: v / len(order) for k, v in seconds.items()}, peer=released)


def main() -> None:
    """Print the three comparisons."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        footage = link_footage(folder / "footage")
        reader = ingest(footage, str(folder / "dataset"))
        peers = Peers(reader, footage, folder / "dataset", folder / "peers")
        order = [peers.keys[i] for i in np.random.default_rng(0).permutation(len(peers.keys))]
        compare_in_memory(list(peers.flows.values()))
        compare_random_reads(peers, order)
        compare_samples(reader, peers, order)


if __name__ == "__main__":
    main()
