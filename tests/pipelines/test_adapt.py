"""Adaptation as people ask for it: clips to masks, and scores before and after side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.adapt import adapt_footage
from pipelines.evaluate import evaluate_model
from tasks.errors import ConfigError
from tests.tasks.tiny_models import saved_model

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_each_clip_is_segmented_by_a_model_of_its_own(rendered: Path, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    clip = sorted((rendered / "footage").glob("*.mp4"))[0]
    still = tmp_path / "still"
    still.mkdir()
    shutil.copy(sorted((rendered / "truth").rglob("*.png"))[0], still / "0.png")
    result = adapt_footage([str(clip), str(still)], model, str(tmp_path / "out"), steps=2)
    moving, alone = result["clips"]
    assert moving["status"].startswith("adapted in 2 steps at rate 1.5e-05 on ")
    assert alone["status"] == "not adapted: 1 frame make no pair at the gaps of the training"
    assert len(list((tmp_path / "out" / clip.stem / "masks").glob("*.png"))) == 6
    record = json.loads((tmp_path / "out" / clip.stem / "result.json").read_text())["adaptation"]
    assert (record["num_steps"], record["skipped"]) == (2, None)
    assert "adapted in 2 steps" in (tmp_path / "out" / clip.stem / "index.html").read_text()
    assert len(list((tmp_path / "out" / "still" / "masks").glob("*.png"))) == 1


def test_scores_before_and_after_stand_side_by_side(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GWM_RAY_CPUS", "1")
    model, file = saved_model(tmp_path / "model"), tmp_path / "scores.json"
    result = evaluate_model(model, "rendered", str(rendered), json_file=str(file), adapt_steps=2)
    for row in result["sequences"]:
        assert {"J label-free", "J label-free, adapted", "J oracle per clip, adapted"} <= set(row)
        assert row["adaptation"] == "done"
    document = json.loads(file.read_text())
    assert document["headline"]["value"] == result["headline"]
    assert document["adapted"]["headline"]["value"] == result["adapted_headline"]
    assert document["adapted"]["model"]["reference"].endswith("adapted to each sequence in 2 steps at the final rate")
    assert {record["num_steps"] for record in document["adapted"]["adaptation"].values()} == {2}
    assert [path.name for path in tmp_path.glob("scores*")] == ["scores.json"]


def test_still_images_can_not_be_adapted_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no motion to adapt to"):
        evaluate_model(saved_model(tmp_path / "model"), "ecssd", str(tmp_path), adapt_steps=2)
