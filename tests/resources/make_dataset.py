"""Makes a tiny dataset with the code at hand: how ``dataset_v1`` was made, by the last program of schema version 1.

    python -m tests.resources.make_dataset tests/resources/dataset_v1

Version 0 holds the clips a and b; version 1 replaces b by other footage of the same name and adds c. Textures move
``STEP_PX`` pixels to the right per frame. The paths in it are invented, so that it looks the same on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.dis import DisEstimator
from tasks.catalog import open_dataset, present_videos, publish
from tasks.decode import Frame
from tasks.identity import Recipe, hash_bytes
from tasks.ingest_worker import frame_rows
from tasks.schema import SCHEMA_VERSION
from tasks.shards import VideoLabel, write_video
from tasks.snapshot import WrittenShard

HEIGHT, WIDTH, NUM_FRAMES, STEP_PX = 32, 48, 4, 2
RECIPE = Recipe(gaps=(1, -1), jpeg_quality=80, schema_version=SCHEMA_VERSION)


def pictures(seed: int) -> list[NDArray[np.uint8]]:
    """RGB frames [HEIGHT, WIDTH, 3] of a smooth texture in motion."""
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH + STEP_PX * NUM_FRAMES, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return [texture[:, STEP_PX * (NUM_FRAMES - index) :][:, :WIDTH] for index in range(NUM_FRAMES)]


def frames(seed: int) -> Iterator[Frame]:
    """The same as decoded frames, 24 per second."""
    for index, image in enumerate(pictures(seed)):
        yield Frame(index=index, time_seconds=index / 24, image=image, source_name=f"{index:05}.png")


def write_clip(dataset: str, clip: str, seed: int) -> tuple[WrittenShard, ...]:
    """Write the shards of one clip; nothing is visible yet."""
    label = VideoLabel(video_id=hash_bytes(bytes([seed])), recipe=RECIPE, clip=clip, source=f"/footage/{clip}")
    return write_video(dataset, label, frame_rows(DisEstimator("medium"), frames(seed), RECIPE))


def main(dataset: str) -> None:
    """Write both versions to a folder that is not there yet."""
    if Path(dataset).exists():
        raise SystemExit(f"{dataset} exists: give a new folder")
    publish(dataset, [*write_clip(dataset, "a", 1), *write_clip(dataset, "b", 2)])
    replaced = [video for video in present_videos(dataset) if video.clip == "b"]
    publish(dataset, [*write_clip(dataset, "b", 3), *write_clip(dataset, "c", 4)], replaced=replaced)
    print(open_dataset(dataset))


if __name__ == "__main__":
    main(sys.argv[1])
