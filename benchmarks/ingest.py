"""Ingest from end to end against a straightforward script: decode with OpenCV, DIS optical flow, pickle files.

Six videos of 24 frames of 240x427, four gaps. The script works in one process and keeps nothing from a crash: float32
flow in a pickle a frame, JPEG beside it, no check, no index. Ours decodes in confined processes, packs the flow, reads
back what it wrote and publishes. Start-up is left out: the time is that from the first video's end to the last's.
Then what a video costs besides decoding and flow: both are taken out, and the rest is timed.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import av
import cv2
import numpy as np
import torch

from tasks.decode import Frame
from tasks.ingest import IngestProgress, make_recipe, prepare_ingest, run_ingest
from tasks.settings import Settings

NUM_VIDEOS, NUM_FRAMES, HEIGHT, WIDTH = 6, 24, 240, 427
GAPS = (1, -1, 2, -2)
NUM_TINY, TINY_FRAMES = 100, 3


def write_video(path: Path, seed: int) -> None:
    """Write H.264 of a moving texture with noise."""
    random = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(random.integers(0, 256, (HEIGHT, WIDTH - 1, 3), dtype=np.uint8), (0, 0), 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH - 1, HEIGHT, "yuv420p"
        for index in range(NUM_FRAMES):
            moved = np.roll(texture, 3 * index, axis=1) + random.normal(0, 3, texture.shape)
            frame = av.VideoFrame.from_ndarray(moved.clip(0, 255).astype(np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def straightforward(videos: list[Path], out: Path) -> float:
    """Do it as one would in an afternoon; returns seconds from the first video's end to the last's."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    ends = []
    for video in videos:
        capture, frames = cv2.VideoCapture(str(video)), []
        while (read := capture.read())[0]:
            frames.append(read[1])
        grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
        for index, frame in enumerate(frames):
            flows = {
                gap: dis.calc(grey[index], grey[index + gap], None) for gap in GAPS if 0 <= index + gap < len(frames)
            }
            name = out / f"{video.stem}_{index:05d}"
            cv2.imwrite(f"{name}.jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
            with Path(f"{name}.pickle").open("wb") as stream:
                pickle.dump(flows, stream)
        ends.append(time.perf_counter())
    return ends[-1] - ends[0]


def ours(footage: Path, dataset: Path, actors: int) -> float:
    """Ingest with so many actors; returns seconds between the first and the last video's end."""
    ends: list[float] = []

    def tell(progress: IngestProgress) -> None:
        ends.append(time.perf_counter())

    recipe = make_recipe(gaps=GAPS)
    plan = prepare_ingest([str(footage)], str(dataset), recipe)
    run_ingest(plan, str(dataset), Settings(ingest_actors=actors, ray_cpus=max(actors, 1)), on_progress=tell)
    return ends[-1] - ends[min(len(ends) - 1, max(actors, 1) - 1)]


def overhead_ms(folder: Path) -> float:
    """Time of a tiny video with decoding and flow taken out: hash, encode, write, check, publish."""
    footage = folder / "tiny"
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for number in range(NUM_TINY):
        clip = footage / f"clip{number:03d}"
        clip.mkdir(parents=True)
        for index in range(TINY_FRAMES):
            cv2.imwrite(str(clip / f"{index:05d}.png"), image + np.uint8(number))

    def frames(*_: object) -> Iterator[Frame]:
        for index in range(TINY_FRAMES):
            yield Frame(index=index, time_seconds=index / 24, image=image, source_name=f"{index}.png")

    still = torch.zeros(1, 2, 48, 64)
    with (
        patch("tasks.ingest_worker.iterate_frames", frames),
        patch("model.dis.DisEstimator.flow", lambda self, pairs: still.expand(len(pairs), -1, -1, -1)),
    ):
        run_ingest(
            prepare_ingest([str(footage / "clip000")], str(folder / "warm"), make_recipe(gaps=GAPS)),
            str(folder / "warm"),
            Settings(ingest_actors=0),
        )
        started = time.perf_counter()
        dataset = str(folder / "tiny_dataset")
        plan = prepare_ingest([str(footage)], dataset, make_recipe(gaps=GAPS))
        run_ingest(plan, dataset, Settings(ingest_actors=0))
        return 1e3 * (time.perf_counter() - started) / NUM_TINY


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Print videos a second of both, with one and with two actors, and the overhead of a video."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        footage, pickles = folder / "footage", folder / "pickles"
        footage.mkdir()
        pickles.mkdir()
        for number in range(NUM_VIDEOS):
            write_video(footage / f"video{number}.mp4", number)
        videos = sorted(footage.iterdir())
        rates = {"script in one process (peer)": (NUM_VIDEOS - 1) / straightforward(videos, pickles)}
        for actors in (1, 2):
            seconds = ours(footage, folder / f"dataset{actors}", actors)
            rates[f"ingest, {actors} actor{'s'[: actors - 1]}"] = (NUM_VIDEOS - actors) / seconds
        print(f"ingest of {NUM_VIDEOS} videos of {NUM_FRAMES} frames of {HEIGHT}x{WIDTH - 1}, {len(GAPS)} gaps")
        peer = next(iter(rates.values()))
        for title, rate in rates.items():
            print(f"  {title:<46} {rate:10.3f} videos/s {rate / peer:8.2f} x")
        print(f"  on disk: {_size(pickles):.1f} MB of the script, {_size(folder / 'dataset1'):.1f} MB of ours")
        print(f"  a video costs {overhead_ms(folder):.1f} ms besides decoding and flow")


if __name__ == "__main__":
    main()
