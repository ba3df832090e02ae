"""A small dataset whose every pixel is known, written by hand so that the reader is checked against another writer."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model.methods.gwm import GwmConfig
from tasks.catalog import publish
from tasks.config import DataConfig, ExperimentConfig, OptimisationConfig, RecordingConfig
from tasks.flow_codec import encode_flow
from tasks.identity import Recipe, hash_bytes
from tasks.schema import SCHEMA_VERSION, flow_column, frame_schema
from tasks.settings import Settings
from tasks.snapshot import WrittenShard
from tasks.storage import location

HEIGHT, WIDTH = 48, 80
GAPS = (1, -1, 2, -2)
SPEED_PX = 2  # the square moves right by this many columns a frame


def frame_of(clip: int, index: int) -> NDArray[np.uint8]:
    """A background of one grey per clip with noise of its own per frame, and a bright square that moves right."""
    rng = np.random.default_rng((clip, index))
    image = np.repeat(rng.normal(80 + 20 * clip, 8, (HEIGHT, WIDTH, 1)).clip(0, 255).astype(np.uint8), 3, axis=2)
    image[square_of(index)] = (230, 30 * clip, 40)
    return image


def square_of(index: int) -> tuple[slice, slice]:
    left = 8 + SPEED_PX * index
    return slice(14, 34), slice(left, left + 20)


def flow_of(index: int, gap: int) -> NDArray[np.float32]:
    flow = np.zeros((2, HEIGHT, WIDTH), np.float32)
    flow[0][square_of(index)] = SPEED_PX * gap
    return flow


def write_dataset(
    root: Path, *, num_frames: tuple[int, ...] = (8, 6, 7), gaps: tuple[int, ...] = GAPS, shard_rows: int = 5
) -> str:
    """Publish one clip per entry of ``num_frames``, split into shards of ``shard_rows`` frames; return its URI."""
    recipe = Recipe(gaps=gaps, schema_version=SCHEMA_VERSION)
    shards = []
    for clip, length in enumerate(num_frames):
        for first in range(0, length, shard_rows):
            rows = [row_of(clip, index, length, recipe) for index in range(first, min(first + shard_rows, length))]
            shards.append(write_shard(root, clip, rows, recipe))
    publish(str(root), shards)
    return str(root)


def row_of(clip: int, index: int, length: int, recipe: Recipe) -> dict[str, object]:
    bgr = cv2.cvtColor(frame_of(clip, index), cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    flows = {
        flow_column(gap): encode_flow(flow_of(index, gap)) if 0 <= index + gap < length else None for gap in recipe.gaps
    }
    return {
        "video_id": hash_bytes(f"clip {clip}".encode()),
        "recipe_hash": recipe.hash(),
        "recipe": recipe.model_dump_json(),
        "clip": f"clip_{clip}",
        "source": f"memory://clip_{clip}",
        "shot": 0,
        "frame_index": index,
        "time_seconds": index / 25,
        "width": WIDTH,
        "height": HEIGHT,
        "jpeg": jpeg,
        "annotation": None,
        **flows,
    }


def write_shard(root: Path, clip: int, rows: list[dict[str, object]], recipe: Recipe) -> WrittenShard:
    first, last = rows[0], rows[-1]
    path = f"clip_{clip}-{first['frame_index']}.parquet"
    (root / "frames").mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=frame_schema(recipe.gaps, recipe_json=recipe.model_dump_json()))
    pq.write_table(table, root / "frames" / path, row_group_size=1)
    return WrittenShard(
        path=path,
        num_bytes=location(root / "frames" / path).size(),
        num_rows=len(rows),
        first_frame=int(str(first["frame_index"])),
        first_time_seconds=float(str(first["time_seconds"])),
        last_time_seconds=float(str(last["time_seconds"])),
        video_id=str(first["video_id"]),
        recipe=recipe,
        clip=str(first["clip"]),
        source=str(first["source"]),
        width=WIDTH,
        height=HEIGHT,
    )


def tiny_experiment(
    *, num_steps: int = 12, batch: int = 4, checkpoint_every: int = 4, **data: object
) -> ExperimentConfig:
    """A network of a few thousand weights on images of 32x56, every step logged in pairs."""
    return ExperimentConfig(
        name="tiny",
        method=GwmConfig(num_segments=3, base_channels=4, image_size=(32, 56), flow_size=(32, 56)),
        data=DataConfig.model_validate({"cache_mb": 32, **data}),
        optimisation=OptimisationConfig(
            num_steps=num_steps,
            global_batch_size=batch,
            learning_rate=3e-3,
            warmup_steps=3,
            gradient_clip_norm=1.0,
            seed=3,
        ),
        recording=RecordingConfig(
            checkpoint_every_steps=checkpoint_every,
            num_checkpoints_kept=2,
            log_every_steps=2,
            pictures_every_steps=1000,
        ),
    )


def local_settings(home: Path, *, workers: int = 0) -> Settings:
    """Everything below ``home``; one thread, so that numbers do not depend on the machine."""
    return Settings(home=home, train_workers=workers, train_threads=1, device="cpu")


def kill_experiment() -> ExperimentConfig:
    """Long enough that something can be killed half way, with a checkpoint every 10 of 300 steps."""
    return tiny_experiment(num_steps=300, checkpoint_every=10)
