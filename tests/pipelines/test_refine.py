"""The flows with a dense CRF, called as the command line calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.adapt import adapt_footage
from pipelines.evaluate import evaluate_model
from pipelines.segment import segment_footage
from tasks.errors import InputError
from tests.tasks.moving_square import square_clip, write_davis
from tests.tasks.small_images import write_images
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


def test_still_images_are_refined_and_say_so(tmp_path: Path) -> None:
    write_images(tmp_path, "ecssd", ["a"], height=40, width=30)
    model, file = saved_model(tmp_path / "model"), tmp_path / "scores.json"
    result = evaluate_model(
        model, "ecssd", str(tmp_path), json_file=str(file), report=str(tmp_path / "report"), crf="rcf"
    )
    assert all(average["foreground"].endswith(", CRF rcf") for average in result["averages"])
    assert {"J label-free, CRF rcf", "accuracy label-free, CRF rcf"} <= set(result["sequences"][0])
    document = json.loads(file.read_text())
    assert (document["crf"]["name"], document["headline"]["crf"]) == ("rcf", "rcf")
    assert "masks refined by a dense CRF, rcf" in (tmp_path / "report/index.html").read_text()
    with pytest.raises(InputError, match="crf='sharp': expected one of gwm, rcf"):
        evaluate_model(model, "ecssd", str(tmp_path), crf="sharp")


def test_an_adapted_clip_is_refined(tmp_path: Path) -> None:
    clip = write_davis(tmp_path / "davis", {"dog": square_clip(4)}) / "JPEGImages/480p/dog"
    result = adapt_footage(
        [str(clip)], saved_model(tmp_path / "model"), str(tmp_path / "out"), steps=1, rate="full", crf="gwm"
    )
    assert [row["status"][:30] for row in result["clips"]] == ["adapted in 1 steps at rate 1.5"]  # the full one
    assert json.loads((tmp_path / "out/dog/result.json").read_text())["crf"] == "gwm"
    with pytest.raises(InputError, match=r"rate='half'.*expected final or full"):
        adapt_footage([str(clip)], saved_model(tmp_path / "model"), str(tmp_path / "out"), rate="half")
