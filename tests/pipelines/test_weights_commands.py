"""``gwm weights`` and ``gwm import-checkpoint`` as their users meet them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from model.weights import save_state_dict
from pipelines.cli import app
from tasks.named_weights import NAMED_WEIGHTS
from tasks.weights import fetch_weights
from tests.tasks.checkpoints import dino_full, dino_state
from tests.tasks.local_server import local_server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GWM_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


def rows_of(output: str) -> dict[str, list[str]]:
    """Lines of a table in a pipe, by their first cell."""
    return {cells[0]: cells for line in output.splitlines() if len(cells := line.split("\t")) > 1}


def test_the_list_tells_what_is_here_and_what_goes_where(cache: Path) -> None:
    cache.mkdir()
    (cache / NAMED_WEIGHTS["raft-things"].file_name).touch()
    result = CliRunner().invoke(app, ["weights"])
    assert result.exit_code == 0, result.output
    rows = rows_of(result.stdout)
    assert rows["name"] == ["name", "what", "labels", "cached", "licence", "file"]
    assert rows["raft-things"][3::2] == ["yes", "raft-things.pth"]
    assert rows["dino-vit-b8"][2:] == ["none", "no", "Apache-2.0 (facebookresearch/dino)", "dino_vitbase8_pretrain.pth"]
    assert set(NAMED_WEIGHTS) < set(rows)
    assert result.stdout.splitlines()[-1] == f"files belong in {cache}"


def test_a_name_is_fetched_and_a_refusal_says_what_to_do(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state_dict({"weight": torch.randn(3)}, tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    with local_server() as server:
        server.files["w.safetensors"] = content
        entry = replace(NAMED_WEIGHTS["pwc-chairs"], url=server.url("w.safetensors"), saved_as="pwc.safetensors")
        monkeypatch.setitem(NAMED_WEIGHTS, "tiny", entry)
        fetched = CliRunner().invoke(app, ["weights", "tiny"])
        refused = CliRunner().invoke(app, ["weights", "tiny", "--sha256", "0" * 64])
    assert fetched.exit_code == 0, fetched.output
    digest = hashlib.sha256(content).hexdigest()
    assert rows_of(fetched.stdout)["tiny"] == ["tiny", "pwc", digest, str(cache / "pwc.safetensors")]
    assert refused.exit_code == 1
    assert f"has SHA-256 {digest}, expected {'0' * 64} (asked for)" in refused.stderr


def test_an_import_shows_its_report_and_gives_a_name(cache: Path, tmp_path: Path) -> None:
    torch.save({"teacher": dino_full(dino_state()), "epoch": 1}, tmp_path / "checkpoint.pth")
    arguments = ["import-checkpoint", str(tmp_path / "checkpoint.pth"), "--register", "mine"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = rows_of(result.stdout)
    assert rows["matched"][1:] == [str(len(dino_state())), "cls_token, pos_embed, patch_embed.proj.weight"]
    assert rows["unmatched"][1:] == ["2", "head.mlp.0.weight, head.last_layer.weight_g"]
    assert rows["missing"][1] == "0"
    assert rows["reference"] == ["reference", "mine"]
    assert fetch_weights("mine").sha256 == rows["sha256"][1]
    listed = rows_of(CliRunner().invoke(app, ["weights"]).stdout)["mine"]
    assert listed[1] == f"imported from {tmp_path / 'checkpoint.pth'}"
    assert listed[-1] == "imported/mine.safetensors"


def test_an_import_that_is_refused_shows_its_report_first(cache: Path, tmp_path: Path) -> None:
    state = dino_state()
    del state["norm.weight"]
    torch.save(state, tmp_path / "checkpoint.pth")
    result = CliRunner().invoke(app, ["import-checkpoint", str(tmp_path / "checkpoint.pth")])
    assert result.exit_code == 1
    assert rows_of(result.stdout)["missing"][1:] == ["1", "norm.weight"]
    assert "can not be imported as dino backbone: missing: norm.weight" in result.stderr
    assert not cache.exists()


def test_a_name_that_mlflow_would_refuse_is_refused_first(cache: Path) -> None:
    result = CliRunner().invoke(app, ["import-checkpoint", "absent.pth", "--register", "a/b"])
    assert result.exit_code == 1
    assert "model name 'a/b': expected letters" in result.stderr
