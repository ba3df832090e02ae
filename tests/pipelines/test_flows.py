"""The flows, called as the command line calls them: real Prefect server, real Ray, two tiny rendered clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.evaluate import evaluate_model
from pipelines.ingest import ingest_footage
from pipelines.retrain import find_champion
from pipelines.runtime import EXPERIMENTS
from pipelines.segment import segment_footage
from pipelines.train import train_gwm
from tasks.catalog import open_dataset
from tasks.config import available_presets, load_experiment
from tasks.dead_letters import read_rejected
from tasks.errors import ConfigError, ErrorBudgetError, InputError, ModelNotFoundError
from tasks.identity import hash_bytes

pytestmark = pytest.mark.usefixtures("prefect_server", "ray_cluster")


def artifacts(key: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))


@pytest.fixture(scope="module")
def ingested(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    dataset = str(tmp_path_factory.mktemp("ingested") / "dataset")
    not_a_video = tmp_path_factory.mktemp("sources") / "notes.mp4"
    not_a_video.write_text("not a video")
    return dataset, ingest_footage([str(rendered / "footage"), str(not_a_video)], dataset, batch_videos=1)


def test_ingest_publishes_and_tells_what_became_of_each_video(ingested: tuple[str, dict[str, Any]]) -> None:
    dataset, summary = ingested
    assert (summary["num_ingested"], summary["num_skipped"], summary["num_rejected"]) == (2, 0, 1)
    assert summary["version"] == open_dataset(dataset).version
    assert summary["num_frames"] == 12
    assert [video["status"] for video in summary["videos"]] == ["rejected", "ingested", "ingested"]
    assert "not_video" in summary["videos"][0]["explanation"]
    assert artifacts("ingest-videos")
    assert artifacts("ingest")


def test_ingesting_again_does_nothing_and_says_why(ingested: tuple[str, dict[str, Any]], rendered: Path) -> None:
    dataset, first = ingested
    again = ingest_footage([str(rendered / "footage")], dataset)
    assert (again["num_ingested"], again["num_skipped"]) == (0, 2)
    assert again["version"] == first["version"]
    assert {video["explanation"] for video in again["videos"]} == {"unchanged"}


def test_too_many_refusals_fail_the_flow_once_all_is_recorded(tmp_path: Path, rendered: Path) -> None:
    footage, dataset = tmp_path / "footage", str(tmp_path / "dataset")
    footage.mkdir()
    clip = sorted((rendered / "footage").glob("*.mp4"))[0]
    shutil.copy(clip, footage / "good.mp4")
    (footage / "bad.mp4").write_text("no video")
    with pytest.raises(ErrorBudgetError, match=r"1 of 2 pieces of footage were refused, 50\.0 %") as caught:
        ingest_footage([str(footage)], dataset, max_rejected=49)
    assert (caught.value.summary["num_ingested"], caught.value.summary["num_rejected"]) == (1, 1)
    assert [video.clip for video in open_dataset(dataset).videos] == ["good"]
    assert [letter.reason for letter in read_rejected(dataset)] == ["not_video"]

    (footage / "good.mp4").rename(footage / "renamed.mp4")
    shutil.copy(sorted((rendered / "footage").glob("*.mp4"))[1], footage / "second.mp4")
    summary = ingest_footage([str(footage)], dataset, retry=["not_video"])
    assert (summary["num_ingested"], summary["num_renamed"], summary["num_rejected"]) == (1, 1, 1)
    assert [letter.attempts for letter in read_rejected(dataset)] == [2]

    (footage / "renamed.mp4").unlink()
    summary = ingest_footage([str(footage)], dataset, prune=True)
    assert (summary["num_removed"], summary["num_skipped"]) == (1, 2)
    assert [video.clip for video in open_dataset(dataset).videos] == ["second"]


def test_a_schedule_may_find_nothing(tmp_path: Path) -> None:
    summary = ingest_footage([str(tmp_path)], str(tmp_path / "dataset"), allow_empty=True)
    assert (summary["version"], summary["num_ingested"]) == (None, 0)
    with pytest.raises(InputError, match="no footage found"):
        ingest_footage([str(tmp_path)], str(tmp_path / "dataset"))


def test_a_model_is_trained_scored_and_used(
    ingested: tuple[str, dict[str, Any]], rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "0")
    trained = train_gwm(ingested[0], "debug", register_as="tiny")
    assert trained["registered"] == "models:/tiny/1"
    assert find_champion.fn("tiny") == "models:/tiny/1"
    assert trained["steps"] == load_experiment("debug", EXPERIMENTS).optimisation.num_steps
    assert train_gwm(ingested[0], "debug")["already_finished"]

    scores = evaluate_model(
        "models:/tiny/1",
        "rendered",
        str(rendered),
        json_file=str(tmp_path / "scores.json"),
        report=str(tmp_path / "report"),
    )
    assert len(scores["sequences"]) == 2
    assert 0 <= scores["headline"] <= 1
    label_free = [row for row in scores["averages"] if row["foreground"] == "label-free"]
    assert {row["labels used"] for row in label_free} == {"no"}
    assert {row["protocol"] for row in label_free} == {"gwm", "gwm-frames", "rcf", "davis"}
    assert (tmp_path / "scores.json").is_file()
    assert Path(scores["page"]).read_text().startswith("<!")
    assert scores["mlflow_run"] == trained["mlflow_run"]

    clip = sorted((rendered / "footage").glob("*.mp4"))[0]
    result = segment_footage([str(clip), str(rendered / "none.mp4")], "models:/tiny@champion", str(tmp_path / "masks"))
    assert [row["status"] for row in result["clips"]] == ["done", "rejected: not_found"]
    assert len(list((tmp_path / "masks" / clip.stem / "masks").glob("*.png"))) == 6
    assert artifacts("clips")
    assert artifacts("averages")

    mask = tmp_path / "masks" / clip.stem / "masks" / "00003.png"
    require_chain(mask, clip, ingested[0], trained["mlflow_run"])


def require_chain(mask: Path, footage: Path, dataset: str, run: str) -> None:
    """``gwm trace`` leads from a mask to all that it was made of."""
    told = CliRunner().invoke(app, ["trace", str(mask), "--json"])
    assert told.exit_code == 0, told.output
    chain = json.loads(told.output)
    links = {link["kind"]: link for link in chain["links"]}
    assert list(links) == ["mask", "footage", "model", "run", "dataset"]
    assert [link["problem"] for link in links.values()] == [None] * 5
    sha256 = hash_bytes(footage.read_bytes())
    assert (links["footage"]["name"], links["footage"]["facts"]["sha256"]) == (str(footage), sha256)
    assert (links["model"]["name"], links["model"]["facts"]["experiment"]) == ("models:/tiny/1", "debug")
    assert (links["run"]["name"], links["run"]["facts"]["registered as"]) == (run, "models:/tiny/1")
    assert links["dataset"]["name"] == f"{dataset} version {open_dataset(dataset).version}"
    assert links["dataset"]["facts"]["this footage itself"] == f"{dataset}/{footage.stem}"
    videos = {hash_bytes(video.read_bytes()): str(video) for video in footage.parent.glob("*.mp4")}
    assert {clip["video_id"]: clip["source"] for clip in chain["clips"]} == videos
    for clip in chain["clips"]:
        (shard,) = clip["shards"]
        assert set(pq.read_table(Path(dataset) / "frames" / shard)["video_id"].to_pylist()) == {clip["video_id"]}


def test_choosing_a_checkpoint_without_labels_is_shown_with_its_cost(
    ingested: tuple[str, dict[str, Any]], rendered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "0")
    overrides = ["recording.checkpoint_choice=held_out_loss", "recording.num_candidates=2"]
    trained = train_gwm(ingested[0], "debug", overrides=overrides)
    assert trained["checkpoint"].startswith("held-out-loss: step ")
    scores = evaluate_model(trained["model"], "rendered", str(rendered), candidates=True)
    assert [row["step"] for row in scores["candidates"]] == [3, 6]
    costs = {row["checkpoint"]: row for row in scores["costs"]}
    assert set(costs) == {"last", "held-out-loss", "stability", "best by labels"}
    assert costs["held-out-loss"]["J label-free"] == scores["headline"]
    assert min(row["below the best"] for row in costs.values()) == 0
    assert artifacts("candidates")
    assert artifacts("checkpoint-costs")

    last = train_gwm(ingested[0], "debug")
    with pytest.raises(ModelNotFoundError, match="was not chosen among several checkpoints"):
        evaluate_model(last["model"], "rendered", str(rendered), candidates=True)
    with pytest.raises(ConfigError, match="checkpoints are compared on videos"):
        evaluate_model(trained["model"], "ecssd", str(rendered), candidates=True)


def test_wrong_names_are_told_before_any_work(ingested: tuple[str, dict[str, Any]], rendered: Path) -> None:
    with pytest.raises(ConfigError, match="no experiment 'dbug': expected one of"):
        train_gwm(ingested[0], "dbug")
    with pytest.raises(ConfigError, match="no such key"):
        train_gwm(ingested[0], "debug", overrides=["optimisation.steps=3"])
    with pytest.raises(ModelNotFoundError, match="models:/none@champion"):
        evaluate_model("models:/none@champion", "rendered", str(rendered))


def test_every_preset_is_valid() -> None:
    assert "debug" in available_presets(EXPERIMENTS)
    for name in available_presets(EXPERIMENTS):
        assert load_experiment(name, EXPERIMENTS).name == name
