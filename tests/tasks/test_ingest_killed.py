from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.catalog import present_videos
from tasks.ingest import prepare_ingest, run_ingest
from tasks.settings import Settings
from tests.tasks.small_footage import RECIPE, shard_files, write_clip

ROOT = Path(__file__).resolve().parents[2]

KILLED_INGEST = """
import sys, time
from tasks.ingest import prepare_ingest, run_ingest
from tasks.identity import Recipe
from tasks.settings import Settings

if __name__ == "__main__":
    footage, dataset, recipe = sys.argv[1:]

    def tell(progress):
        print("done", progress.num_done, flush=True)
        if progress.num_done == 3:  # a shard of the second batch is written and not published
            time.sleep(600)

    plan = prepare_ingest([footage], dataset, Recipe.model_validate_json(recipe))
    settings = Settings(ray_cpus=1, ingest_actors=1, ray_object_store_mb=80)
    run_ingest(plan, dataset, settings, batch_videos=2, on_progress=tell)
"""


@pytest.mark.slow
def test_a_killed_ingest_leaves_no_half_and_continues(ray_cluster: None, tmp_path: Path) -> None:
    footage, dataset = tmp_path / "footage", tmp_path / "dataset"
    for index in range(5):
        write_clip(footage / f"clip{index}", 3, index)
    script = tmp_path / "killed_ingest.py"
    script.write_text(KILLED_INGEST)
    command = [sys.executable, str(script), str(footage), str(dataset), RECIPE.model_dump_json()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.kill()
    assert lines == ["done 1\n", "done 2\n", "done 3\n"]

    visible = {shard.path for video in present_videos(str(dataset)) for shard in video.shards}
    left_over = shard_files(dataset) - visible
    assert len(visible) == 2
    assert left_over  # the third, and whatever its actor had finished after it

    plan = prepare_ingest([str(footage)], str(dataset), RECIPE)
    assert [video.reason for video in plan.videos] == ["unchanged", "unchanged", "new", "new", "new"]
    summary = run_ingest(plan, str(dataset), Settings(ingest_actors=1))

    assert (summary.num_ingested, summary.num_skipped) == (3, 2)
    videos = present_videos(str(dataset))
    assert [(video.clip, video.num_frames) for video in videos] == [(f"clip{index}", 3) for index in range(5)]
    assert left_over < shard_files(dataset)  # left over shards were written again under their own names
    assert len(shard_files(dataset)) == 5
