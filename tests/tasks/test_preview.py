"""The page of a dataset: whole by itself, light, and honest about clips that can not be shown."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tasks.catalog import open_dataset
from tasks.preview import NUM_FRAMES, TILE_HEIGHT, flow_scale, spread_clips, spread_frames, write_preview
from tasks.storage import location
from tests.tasks.small_dataset import ingest_here
from tests.tasks.small_footage import HEIGHT, WIDTH, write_clip
from tests.tasks.test_report import Links


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two clips of 9 and 3 frames; the first has a mask on its frame 0."""
    root = tmp_path_factory.mktemp("footage")
    write_clip(root / "JPEGImages/fox <b>", 9, 1)
    write_clip(root / "JPEGImages/hare", 3, 2)
    masks = root / "Annotations/fox <b>"
    masks.mkdir(parents=True)
    cv2.imwrite(str(masks / "00000.png"), np.eye(HEIGHT, WIDTH, dtype=np.uint8) * 255)
    return ingest_here(root, str(root / "dataset"))


def pictures_of(html: str) -> list[str]:
    return re.findall(r'<img src="([^"]+)" width="\d+" height="\d+" loading="lazy"', html)


def test_a_folder_holds_a_page_and_its_pictures(dataset: str, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    snapshot = open_dataset(dataset)
    page = write_preview(snapshot, location(tmp_path), max_clips=9, on_progress=lambda *now: told.append(now))
    html = page.read_bytes().decode()
    assert [now[:2] for now in told] == [(1, 2), (2, 2)]
    names = pictures_of(html)
    assert len(names) == 3 + 2  # frames and flow of both, masks of one
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert (picture.format, picture.height) == ("JPEG", TILE_HEIGHT)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg")} == set(names)
    fetched = Links(html).fetched
    assert set(fetched) - set(names) == {fetched[0]}  # the wheel
    assert fetched[0].startswith("data:image/jpeg;base64,")
    assert "<script" not in html
    assert "<b>" not in html.replace("<body>", "")
    assert "full colour 2.0 px" in html


def test_one_file_holds_everything(dataset: str, tmp_path: Path) -> None:
    page = write_preview(open_dataset(dataset), location(tmp_path / "page.html"), max_clips=1)
    assert page.local_path == tmp_path / "page.html"
    assert list(tmp_path.iterdir()) == [page.local_path]
    html = page.read_bytes().decode()
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures_of(html))
    assert "1 of them shown" in html


def test_writing_again_replaces_the_pictures_and_nothing_else(dataset: str, tmp_path: Path) -> None:
    snapshot = open_dataset(dataset)
    write_preview(snapshot, location(tmp_path), max_clips=2)
    before = {path.name for path in (tmp_path / "pictures").iterdir()}
    (tmp_path / "pictures" / "mine.jpg").write_bytes(b"mine")
    write_preview(replace(snapshot, videos=snapshot.videos[:1]), location(tmp_path), max_clips=2)
    after = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert "mine.jpg" in after
    assert after - {"mine.jpg"} < before


def test_a_clip_that_can_not_be_read_is_said_to_be(dataset: str, tmp_path: Path) -> None:
    snapshot = open_dataset(dataset)
    (first, second) = snapshot.videos
    lost = replace(first, shards=tuple(replace(shard, path="lost.parquet") for shard in first.shards))
    page = write_preview(replace(snapshot, videos=(lost, second)), location(tmp_path), max_clips=2)
    html = page.read_bytes().decode()
    assert "lost.parquet can not be read" in html
    assert len(pictures_of(html)) == 2


def test_strips_show_what_is_stored(dataset: str, tmp_path: Path) -> None:
    page = write_preview(open_dataset(dataset), location(tmp_path), max_clips=1)
    frames, flow, masks = (
        np.asarray(Image.open(io.BytesIO((tmp_path / name).read_bytes()))).astype(int)
        for name in pictures_of(page.read_bytes().decode())
    )
    tile = slice(None), slice(0, TILE_HEIGHT * WIDTH // HEIGHT)
    middle = flow[tile][30:-30, 30:-30].reshape(-1, 3).mean(0)
    assert middle[0] > 200  # the texture moves right, which is red
    assert middle[1] < 90
    assert np.abs(frames[tile] - masks[tile]).max() > 60  # the mask is drawn over the frame
    dimmed = slice(None), slice(-tile[1].stop, None)
    assert masks[dimmed].mean() < 0.5 * frames[dimmed].mean()  # no annotation there


def test_clips_and_frames_are_spread(dataset: str) -> None:
    (clip, *_) = open_dataset(dataset).clips
    clips = [replace(clip, clip=str(number)) for number in range(10)]
    assert [each.clip for each in spread_clips(clips, 4)] == ["0", "2", "5", "7"]
    assert spread_clips(clips, 99) == clips
    assert spread_clips([], 5) == []
    assert spread_frames(101, 1) == [0, 20, 40, 59, 79, 99]
    assert spread_frames(101, -1, 3) == [1, 50, 100]
    assert len(spread_frames(1000, 2)) == NUM_FRAMES
    assert spread_frames(3, 5) == [0, 1, 2]
    assert spread_frames(1, 1) == [0]


def test_one_scale_for_all_flows_of_a_clip() -> None:
    still, moving = np.zeros((2, 4, 4), np.float32), np.full((2, 4, 4), 3, np.float32)
    assert flow_scale([still, moving, None]) == pytest.approx(3 * 2**0.5)
    assert flow_scale([None]) == 0.0
