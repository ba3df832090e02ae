"""The two clients of S3 that the project uses, pyarrow's own and s3fs, against each other on a server of this machine.

Objects are as large as shards are, of random bytes, since JPEGs and stored flow do not compress; ranges are as large as
a frame with one flow. Server and clients share the processor, so beside the time on the clock stands the processor time
of the client alone: on a network the server's part is another machine's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from tasks.storage import Location, location
from tests import s3_server

SHARD_BYTES, RANGE_BYTES = 10_000_000, 250_000  # a frame of 480x854 and one of its flows (benchmarks/flow_storage.py)
AT_ONCE, NUM_RANGES = 4, 8
ARROW, S3FS = "pyarrow.fs", "s3fs"

Task = Callable[[Location], int]
"""Does something with one object, and returns how many bytes it moved."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of one piece of work: on the clock, and of this process's processor."""

    wall: float
    processor: float


def tasks_of_arrow(shard: bytes, offsets: Sequence[int]) -> dict[str, Task]:
    """What is measured, by pyarrow in the way that asks the server least."""

    def write(place: Location) -> int:
        with place.filesystem.open_output_stream(place.path, compression=None) as stream:
            return int(stream.write(shard))

    def read(place: Location) -> int:
        with place.filesystem.open_input_file(place.path) as file:  # a stream makes many requests
            return len(file.read())

    def ranges(place: Location) -> int:
        with place.filesystem.open_input_file(place.path) as file:
            return sum(len(file.read_at(RANGE_BYTES, offset)) for offset in offsets)

    return {"write": write, "read": read, "ranges": ranges}


def tasks_of_s3fs(shard: bytes, offsets: Sequence[int]) -> dict[str, Task]:
    """The same by s3fs."""

    def write(place: Location) -> int:
        filesystem, path = place.fsspec()
        filesystem.pipe_file(path, shard)
        return len(shard)

    def read(place: Location) -> int:
        filesystem, path = place.fsspec()
        return len(filesystem.cat_file(path))

    def ranges(place: Location) -> int:
        filesystem, path = place.fsspec()
        return sum(len(filesystem.cat_file(path, start=offset, end=offset + RANGE_BYTES)) for offset in offsets)

    return {"write": write, "read": read, "ranges": ranges}


def measure(work: Callable[[], int], expected_bytes: int) -> Times:
    """Time one call, and check that it moved what it should."""
    wall, processor = time.perf_counter(), time.process_time()
    moved = work()
    times = Times(wall=time.perf_counter() - wall, processor=time.process_time() - processor)
    assert moved == expected_bytes, (moved, expected_bytes)
    return times


def compare(folder: Location, name: str, by_client: dict[str, Task], num_bytes: int, at_once: int, rounds: int) -> None:
    """Alternate between the clients, ``at_once`` objects at a time, and print medians and their ratio."""
    places = [folder / f"{number}" for number in range(at_once)]
    taken: dict[str, list[Times]] = {client: [] for client in by_client}
    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(rounds + 1):
            for client, task in by_client.items():
                taken[client].append(measure(lambda run=task: sum(pool.map(run, places)), at_once * num_bytes))
    wall, processor = (
        {client: median(getattr(one, kind) for one in times[1:]) for client, times in taken.items()}
        for kind in ("wall", "processor")
    )
    print(
        f"{name + f', {at_once} at once':<36}"
        + "".join(f"{client} {wall[client] * 1e3:8.1f} ms, {processor[client] * 1e3:7.1f} CPU   " for client in taken)
        + f"{wall[S3FS] / wall[ARROW]:5.2f} x, {processor[S3FS] / processor[ARROW]:5.2f} x CPU"
    )


def main(arguments: Sequence[str] = ()) -> None:
    """Start a server, and print a line for each kind of work, alone and several at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of which the median is taken")
    rounds = parser.parse_args(arguments).rounds
    random = np.random.default_rng(0)
    shard = random.bytes(SHARD_BYTES)
    offsets = [int(offset) for offset in random.integers(0, SHARD_BYTES - RANGE_BYTES, NUM_RANGES)]
    s3_server.prepare_environment()
    with tempfile.TemporaryDirectory() as temporary:
        server = s3_server.S3Server(Path(temporary) / "store")
        server.start()
        with ExitStack() as ending:
            ending.callback(server.kill)
            s3_server.make_bucket()
            arrow, s3fs = tasks_of_arrow(shard, offsets), tasks_of_s3fs(shard, offsets)
            sizes = {"write": SHARD_BYTES, "read": SHARD_BYTES, "ranges": NUM_RANGES * RANGE_BYTES}
            print(f"objects of {SHARD_BYTES / 1e6:.0f} MB, {NUM_RANGES} ranges of {RANGE_BYTES / 1e3:.0f} kB of each;")
            print(f"medians of {rounds}; the ratio is how many times as long s3fs takes")
            for name, num_bytes in sizes.items():
                for at_once in (1, AT_ONCE):
                    folder = location(f"s3://{s3_server.BUCKET}/benchmark")
                    by_client = {ARROW: arrow[name], S3FS: s3fs[name]}
                    compare(folder, name, by_client, num_bytes, at_once, rounds)


if __name__ == "__main__":
    main()
