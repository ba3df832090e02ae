"""The flows with a dense CRF, called as the command line calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.evaluate import evaluate_model
from pipelines.segment import segment_footage
from tasks.errors import ConfigError
from tests.tasks.moving_square import square_clip, write_davis
from tests.tasks.tiny_models import saved_model

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_tables_name_the_crf_in_every_column_of_scores(tmp_path: Path) -> None:
    root = write_davis(tmp_path / "davis", {"dog": square_clip(4)})
    model, file = saved_model(tmp_path / "model"), tmp_path / "scores.json"
    result = evaluate_model(model, "davis16", str(root), json_file=str(file), crf="rcf")
    (row,) = result["sequences"]
    assert all(column.endswith(", CRF rcf") for column in row if column[:2] in ("J ", "F "))
    assert {"J label-free, CRF rcf", "F label-free, CRF rcf"} <= set(row)
    assert all(average["foreground"].endswith(", CRF rcf") for average in result["averages"])
    assert json.loads(file.read_text())["headline"]["crf"] == "rcf"
    clips = segment_footage([str(root / "JPEGImages/480p/dog")], model, str(tmp_path / "out"), crf="gwm")["clips"]
    assert [clip["status"] for clip in clips] == ["done"]
    assert json.loads((tmp_path / "out/dog/result.json").read_text())["crf"] == "gwm"


def test_still_images_are_scored_without(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scored as they are"):
        evaluate_model(saved_model(tmp_path / "model"), "ecssd", str(tmp_path), crf="gwm")
