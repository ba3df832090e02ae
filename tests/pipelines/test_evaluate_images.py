"""The evaluation flow on still images, called as the command line calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.evaluate import evaluate_model
from tasks.errors import ConfigError, DatasetError, InputError
from tests.tasks.small_images import write_images
from tests.tasks.tiny_models import saved_model

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_still_images_are_scored_by_the_same_flow(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    write_images(tmp_path, "ecssd", ["a", "b"], height=40, width=30)
    result = evaluate_model(
        model, "ecssd", str(tmp_path), json_file=str(tmp_path / "scores.json"), report=str(tmp_path / "report")
    )
    assert result["coverage"] == "2 of 1000 images"
    assert {row["image, worst first"] for row in result["sequences"]} == {"a", "b"}
    assert [row["labels used"] for row in result["averages"]] == ["no", "no", "yes", "yes"]
    assert result["headline"] == json.loads((tmp_path / "scores.json").read_text())["headline"]["value"]
    assert Path(result["page"]).read_text().startswith("<!")
    assert result["mlflow_run"] is None


def test_what_still_images_can_not_have_is_told(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    with pytest.raises(DatasetError, match=r"no folder .*; expected ECSSD/images"):
        evaluate_model(model, "ecssd", str(tmp_path))
    write_images(tmp_path, "ecssd", ["a"], height=40, width=30)
    with pytest.raises(ConfigError, match="images dog are not in ecssd"):
        evaluate_model(model, "ecssd", str(tmp_path), sequences=["dog"])
    with pytest.raises(InputError, match="network size 'huge'"):
        evaluate_model(model, "ecssd", str(tmp_path), network_size="huge")
    with pytest.raises(InputError, match="merging by motion needs optical flow"):
        evaluate_model(model, "ecssd", str(tmp_path), features="motion")
