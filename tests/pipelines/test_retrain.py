"""Retraining: when there is something to learn, from what it goes on, and what happens to the alias."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.recipe import RecipeRequest, choose_recipe, recipe_in_use
from pipelines.retrain import DECISION_TAG, HELD_OUT_PERCENT, check_request, is_decided, retrain_on_new_footage
from pipelines.runtime import load_settings
from tasks.catalog import open_dataset
from tasks.errors import ConfigError, DatasetError
from tasks.held_out import is_held_out
from tasks.registry import find_alias, list_models
from tasks.tracking import open_run
from tests.tasks.training_data import write_dataset

TAGS = {"gwm.dataset_uri": "s3://b/d", "gwm.dataset_version": "3", DECISION_TAG: "promoted: there is no champion yet"}


@pytest.mark.parametrize(
    ("tags", "decided"),
    [
        ([TAGS], True),
        ([{**TAGS, "gwm.dataset_version": "2"}, TAGS], True),
        ([], False),
        ([{**TAGS, "gwm.dataset_version": "2"}], False),
        ([{**TAGS, "gwm.dataset_uri": "s3://b/other"}], False),
        ([{key: value for key, value in TAGS.items() if key != DECISION_TAG}], False),  # killed before it was decided
    ],
)
def test_a_version_is_decided_on_once(tags: list[dict[str, str]], decided: bool) -> None:
    assert is_decided(tags, "s3://b/d", 3) is decided


def test_new_footage_is_ingested_as_the_dataset_was_made(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", num_frames=(8,), gaps=(3, -3))
    (video,) = open_dataset(dataset).videos
    assert recipe_in_use(dataset) == video.recipe
    assert choose_recipe.fn(RecipeRequest(max_side=480, kept_from=dataset)).hash() == video.recipe_hash
    assert choose_recipe.fn(RecipeRequest(max_side=480)).gaps == (1, -1, 2, -2)
    assert choose_recipe.fn(RecipeRequest(max_side=480, kept_from=str(tmp_path / "none"))).max_side == 480


@pytest.mark.parametrize(
    ("overrides", "benchmark", "root", "error", "message"),
    [
        (["optimisation.steps=5"], None, None, ConfigError, "optimisation.steps: no such key"),
        ([], "davis16", None, ConfigError, "give both"),
        ([], None, "somewhere", ConfigError, "give both"),
        ([], "davis17", "somewhere", ConfigError, "no benchmark 'davis17'"),
        ([], "davis16", "somewhere", DatasetError, "somewhere"),
    ],
)
def test_what_would_stop_the_decision_is_told_before_training(
    overrides: list[str], benchmark: str | None, root: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_request.fn("debug", overrides, benchmark, root)


@pytest.mark.usefixtures("prefect_server", "ray_cluster")
def test_retraining_promotes_stops_and_goes_on(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "0")
    sources, dataset = [str(rendered / "footage")], str(tmp_path / "dataset")
    benchmark = {"experiment": "debug", "benchmark": "rendered", "root": str(rendered)}

    first = retrain_on_new_footage(sources, dataset, "birds", **benchmark)
    assert (first["outcome"], first["reason"]) == ("promoted", "there is no champion yet")
    champion = find_alias(load_settings(), name="birds", alias="champion")
    assert champion is not None
    assert champion.reference == first["challenger"] == "models:/birds/1"
    assert open_run(load_settings(), str(champion.run_id)).tags()[DECISION_TAG].startswith("promoted")

    again = retrain_on_new_footage(sources, dataset, "birds", **benchmark)
    assert (again["outcome"], again["champion"]) == ("nothing new", "models:/birds/1")

    forced = retrain_on_new_footage(sources, dataset, "birds", force=True, **benchmark)
    assert forced["challenger"] == "models:/birds/2"
    assert forced["outcome"] in ("promoted", "champion kept")
    assert "label-free J on rendered" in forced["reason"]
    after = find_alias(load_settings(), name="birds", alias="champion")
    assert after is not None
    assert after.version == (2 if forced["outcome"] == "promoted" else 1)
    assert open_run(load_settings(), _run_of("birds", 2)).tags()["gwm.initial_model"] == "models:/birds/1"


@pytest.mark.usefixtures("prefect_server")
def test_without_a_benchmark_footage_kept_aside_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset large enough to have videos kept aside; nothing new arrives, so nothing is ingested."""
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "0")
    dataset = write_dataset(tmp_path / "dataset", num_frames=(4,) * 8)
    assert any(is_held_out(video.video_id, HELD_OUT_PERCENT) for video in open_dataset(dataset).videos)
    nowhere = [str(tmp_path / "nowhere")]
    first = retrain_on_new_footage(nowhere, dataset, "cats", experiment="debug", allow_empty=True)
    assert first["outcome"] == "promoted"
    second = retrain_on_new_footage(nowhere, dataset, "cats", experiment="debug", allow_empty=True, force=True)
    assert "held-out loss" in second["reason"]


@pytest.mark.usefixtures("prefect_server")
def test_an_empty_place_is_nothing_new(tmp_path: Path) -> None:
    result = retrain_on_new_footage([str(tmp_path)], str(tmp_path / "dataset"), "dogs", allow_empty=True)
    assert result == {"outcome": "nothing new", "dataset_version": None, "champion": None}


def _run_of(name: str, version: int) -> str:
    return next(str(model.run_id) for model in list_models(load_settings(), name=name) if model.version == version)
