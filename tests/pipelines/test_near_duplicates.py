"""Copies of footage, left out on the command line: what is told then, and what a check of the dataset makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from tasks.catalog import open_dataset
from tests.tasks.test_near_duplicates import half, scene
from tests.video_files import write_video


def gwm(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("prefect_server")
def test_what_is_left_out_as_a_copy_is_told_and_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWM_INGEST_ACTORS", "0")
    footage, dataset = tmp_path / "footage", str(tmp_path / "dataset")
    footage.mkdir()
    first, second, third = scene(1, 8), scene(2, 7), scene(3, 8)
    write_video(footage / "original.mp4", [*first, *second])
    ingest = ["ingest", str(footage), "--dataset", dataset, "--near-duplicates", "skip", "--gaps"]
    assert "ingested 1, skipped 0, rejected 0: " in gwm(*ingest, "1,-1")

    write_video(footage / "copy.mp4", half([*first, *second]), codec_options={"crf": "28"})
    write_video(footage / "partly.mp4", [*half(third), *half(second)])
    told = gwm(*ingest, "1,-1")
    assert "ingested 1, skipped 1, rejected 1, clips like others 1: " in told
    assert f"near_duplicate: 2 shots, 2 like {footage / 'original.mp4'}, 2 left out" in told
    assert f"new: 2 shots, 1 like {footage / 'original.mp4'}, 1 left out" in told
    assert gwm("rejected", dataset).splitlines()[-1] == "1 refused: 1 near_duplicate"

    def require_sound() -> None:
        assert [clip.num_frames for clip in open_dataset(dataset).clips] == [8, 7, 8]
        verified = gwm("verify", dataset, "--sample", "100%")
        assert "nothing differs; 3 shards read, 2 of 2 sampled videos made again (23 frames, " in verified

    require_sound()
    gwm(*ingest, "1")  # copies what is stored and decodes nothing, so the shot that was left out is not seen again
    require_sound()
