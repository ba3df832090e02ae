"""Where a video is cut: on footage whose cuts are known because they were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.catalog import open_dataset, publish
from tasks.dataset import FrameReader
from tasks.decode import Frame
from tasks.errors import DatasetError
from tasks.footage_files import list_images
from tasks.identity import Recipe
from tasks.ingest import prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.rendering.renderer import render_frame
from tasks.schema import SCHEMA_VERSION
from tasks.shots import WINDOW, split_into_shots, splits_shots
from tests.rendered_scenes import NUM_FRAMES, small_scenes
from tests.shared import DAVIS, shared_or_skip
from tests.tasks.small_footage import HEIGHT, WIDTH, pictures
from tests.video_files import write_video

Pictures = Sequence[NDArray[np.uint8]]


def as_frames(images: Pictures) -> Iterator[Frame]:
    for index, image in enumerate(images):
        yield Frame(index=index, time_seconds=index / 24, image=image, source_name=str(index))


def shot_lengths(images: Pictures) -> list[int]:
    """Split, and check on the way that every frame comes out once, in order."""
    shots = [[frame.index for frame in shot] for shot in split_into_shots(as_frames(images))]
    assert [index for shot in shots for index in shot] == list(range(len(images)))
    return [len(shot) for shot in shots]


def cuts_of(images: Pictures) -> set[int]:
    return set(np.cumsum(shot_lengths(images)).tolist()[:-1])


@pytest.fixture(scope="module")
def sequences() -> dict[str, list[NDArray[np.uint8]]]:
    """The ten real sequences at a quarter of their size, RGB."""
    root = shared_or_skip(DAVIS / "JPEGImages" / "480p")
    return {
        folder.name: [cv2.imread(uri, cv2.IMREAD_REDUCED_COLOR_4)[..., ::-1] for uri in list_images(str(folder))]
        for folder in sorted(root.iterdir())
    }


@pytest.mark.shared
@pytest.mark.parametrize(("speed", "min_recall"), [(1, 0.99), (2, 0.99), (4, 0.90)])
def test_real_cuts_are_found_and_fast_motion_is_none(
    sequences: dict[str, list[NDArray[np.uint8]]], speed: int, min_recall: float
) -> None:
    random = np.random.default_rng(speed)
    made: set[int] = set()
    images: list[NDArray[np.uint8]] = []
    names = [name for _ in range(6) for name in random.permutation(sorted(sequences))]
    for before, name in zip([None, *names], names, strict=False):
        if name == before:
            continue
        source = sequences[name][::speed]
        length = int(random.integers(6, 12))
        start = int(random.integers(0, max(1, len(source) - length)))
        made.add(len(images))
        images += source[start : start + length]
    made.remove(0)
    found = cuts_of(images)
    assert found <= made  # not one false cut
    assert len(found & made) >= min_recall * len(made)


@pytest.mark.shared
@pytest.mark.parametrize("speed", [1, 2, 4])
def test_no_real_sequence_is_split(sequences: dict[str, list[NDArray[np.uint8]]], speed: int) -> None:
    assert [name for name, images in sequences.items() if cuts_of(images[::speed])] == []


def test_rendered_scenes_are_parted_where_they_meet() -> None:
    scenes = list(small_scenes().values())
    images = [render_frame(scene, frame) for scene in scenes for frame in range(NUM_FRAMES)]
    assert shot_lengths(images) == [NUM_FRAMES] * len(scenes)


def test_no_frame_waits_longer_than_the_window() -> None:
    seen: list[int] = []

    def watched() -> Iterator[Frame]:
        for frame in as_frames([*pictures(10, 1), *pictures(10, 2)]):
            seen.append(frame.index)
            yield frame

    for shot in split_into_shots(watched()):
        for frame in shot:
            assert len(seen) <= frame.index + 1 + WINDOW


def test_a_fade_through_black_parts_two_scenes() -> None:
    first, second = pictures(12, 1).astype(float), pictures(12, 2).astype(float)
    fade = np.linspace(1, 0, 12)[:, None, None, None]
    images = np.concatenate([pictures(12, 1), first * fade, np.zeros((6, HEIGHT, WIDTH, 3)), second * fade[::-1]])
    lengths = shot_lengths(list(images.astype(np.uint8)))
    assert len(lengths) == 3
    assert 6 <= lengths[1] <= 10  # the black and what is nearly black


def test_a_flash_is_a_shot_of_its_own() -> None:
    images = list(pictures(20, 1))
    images[10] = np.full_like(images[10], 250)
    assert shot_lengths(images) == [10, 1, 9]


@pytest.mark.parametrize("images", [[], list(pictures(1, 1)), list(pictures(2, 1))])
def test_too_few_frames_to_tell_are_one_shot(images: Pictures) -> None:
    assert shot_lengths(images) == ([len(images)] if images else [])


def test_recipes_say_what_is_split() -> None:
    assert [splits_shots("auto", kind) for kind in ("video", "frames", "image")] == [True, False, False]
    assert splits_shots("on", "frames")
    assert not splits_shots("off", "video")


def test_no_stored_flow_crosses_a_cut(tmp_path: Path) -> None:
    images = [*pictures(7, 1) // 2, *(pictures(5, 2) // 2 + 120), *pictures(6, 3) // 2 // (1, 2, 4)]
    images = [image.astype(np.uint8) for image in images]
    footage = write_video(tmp_path / "three.mp4", images)
    recipe = Recipe(gaps=(1, -1, 2, -2), shots="auto", schema_version=SCHEMA_VERSION)
    dataset = str(tmp_path / "dataset")
    (video,) = prepare_ingest([str(footage)], dataset, recipe).videos

    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=recipe)).run(video)
    publish(dataset, work.shards)

    snapshot = open_dataset(dataset)
    assert [(clip.clip, clip.num_frames) for clip in snapshot.clips] == [
        ("three_shot000", 7),
        ("three_shot001", 5),
        ("three_shot002", 6),
    ]
    assert (len(snapshot.videos), snapshot.num_frames) == (1, 18)
    reader = FrameReader(snapshot)
    number = 0
    for clip, index in enumerate(reader.clips):
        for frame in range(index.num_frames):
            stored = reader.read_image(clip, frame).permute(1, 2, 0).numpy().astype(int)
            assert np.abs(stored - images[number]).mean() < 12
            number += 1
            for gap in recipe.gaps:
                if 0 <= frame + gap < index.num_frames:
                    flow = reader.read_pair(clip, frame, gap).flow[0, 8:-8, 16:-16]
                    assert abs(float(flow.median()) - 2 * gap) < 0.2
                else:
                    with pytest.raises(DatasetError, match="no optical flow"):
                        reader.read_pair(clip, frame, gap)
