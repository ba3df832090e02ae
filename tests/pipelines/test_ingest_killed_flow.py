from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from pipelines.ingest import ingest_footage
from tasks.catalog import dataset_exists, open_dataset
from tests.tasks.small_footage import write_clip
from tests.tasks.test_pool import wait_until

ROOT = Path(__file__).resolve().parents[2]
RUN_OF_A_WORKER = """
import sys
from pipelines.ingest import ingest_footage

if __name__ == "__main__":
    ingest_footage([sys.argv[1]], sys.argv[2], batch_videos=1)
"""


@pytest.mark.slow
def test_a_flow_run_whose_process_is_killed_completes_when_it_runs_again(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GWM_INGEST_ACTORS", "0")
    footage, dataset = tmp_path / "footage", str(tmp_path / "dataset")
    for index in range(8):
        write_clip(footage / f"clip{index}", 3, index)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    command = [sys.executable, "-c", RUN_OF_A_WORKER, str(footage), dataset]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: dataset_exists(dataset) or process.poll() is not None)
        assert process.poll() is None
        process.kill()
    num_before = len(open_dataset(dataset).videos)
    assert 1 <= num_before < 8

    summary = ingest_footage([str(footage)], dataset, batch_videos=4)

    assert (summary["num_ingested"], summary["num_skipped"]) == (8 - num_before, num_before)
    assert [video.num_frames for video in open_dataset(dataset).videos] == [3] * 8
