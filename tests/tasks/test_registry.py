from __future__ import annotations

from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
import torch
from mlflow.store.entities import PagedList

from model.methods import build_method
from tasks.errors import InputError, ModelNotFoundError
from tasks.model_package import Provenance, load_model, save_model
from tasks.registry import _every, find_alias, list_models, log_model, register_model, resolve_model, set_alias
from tasks.served_model import ServedModel
from tasks.settings import Settings
from tasks.storage import location
from tasks.tracking import find_or_create_run
from tests.tasks.training_data import frame_of, local_settings, tiny_experiment


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local_settings(tmp_path_factory.mktemp("home"))


def logged_run(settings: Settings, name: str) -> str:
    """A run with a freshly made model; return the run's id."""
    torch.manual_seed(len(name))  # differs between the two names
    experiment = tiny_experiment()
    folder = location(settings.home_path / "packages" / name)
    save_model(folder, build_method(experiment.method), experiment=experiment, provenance=Provenance(training_id=name))
    run = find_or_create_run(settings, name, tags={}, params={})
    assert log_model(run, folder) == f"runs:/{run.run_id}/model"
    return run.run_id


def trained_as(path: Path) -> str | None:
    return load_model(str(path)).provenance.training_id


@pytest.fixture(scope="module")
def versions(settings: Settings) -> dict[str, str]:
    """Two versions of the model gwm, the second of which is the champion; run ids by training."""
    runs = {name: logged_run(settings, name) for name in ("first", "second")}
    assert register_model(settings, name="gwm", run_id=runs["first"]).version == 1
    assert register_model(settings, name="gwm", run_id=runs["second"]).version == 2
    set_alias(settings, name="gwm", alias="champion", version=2)
    return runs


def test_every_kind_of_reference_leads_to_its_model(settings: Settings, versions: dict[str, str]) -> None:
    assert trained_as(resolve_model("models:/gwm@champion", settings)) == "second"
    assert trained_as(resolve_model("models:/gwm/1", settings)) == "first"
    assert trained_as(resolve_model(f"runs:/{versions['first']}", settings)) == "first"
    assert trained_as(resolve_model(f"runs:/{versions['second']}/model", settings)) == "second"
    folder = settings.home_path / "packages" / "first"
    assert resolve_model(str(folder), settings) == folder
    assert resolve_model(folder.as_uri(), settings) == folder


def test_folder_of_a_training_run_leads_to_its_model(settings: Settings, tmp_path: Path) -> None:
    save_model(
        location(tmp_path / "run" / "model"),
        build_method(tiny_experiment().method),
        experiment=tiny_experiment(),
        provenance=Provenance(),
    )
    assert resolve_model(str(tmp_path / "run"), settings) == tmp_path / "run" / "model"


def test_remote_models_are_fetched_once(settings: Settings) -> None:
    place = location("memory://models/remote")
    experiment = tiny_experiment()
    save_model(place, build_method(experiment.method), experiment=experiment, provenance=Provenance(training_id="far"))
    fetched = resolve_model("memory://models/remote", settings)
    assert trained_as(fetched) == "far"
    before = (fetched / "model.safetensors").stat().st_mtime_ns
    assert resolve_model("memory://models/remote", settings) == fetched
    assert (fetched / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "reference", ["models:/gwm@challenger", "models:/gwm/7", "models:/other/1", "runs:/" + "0" * 32, "models:/gwm"]
)
def test_references_that_lead_nowhere_list_what_exists(
    settings: Settings, versions: dict[str, str], reference: str
) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        resolve_model(reference, settings)
    assert reference in str(raised.value)
    if reference.startswith("models:"):
        assert "models:/gwm@champion" in str(raised.value)
        assert "models:/gwm/1" in str(raised.value)


def test_another_mlflow_has_models_of_its_own(tmp_path: Path, versions: dict[str, str]) -> None:
    settings = local_settings(tmp_path / "home")
    with pytest.raises(ModelNotFoundError, match="none yet"):
        resolve_model("models:/gwm@champion", settings)
    with pytest.raises(ModelNotFoundError, match=r"no model at .*absent.*model\.json.*none yet"):
        resolve_model(str(tmp_path / "absent"), settings)


def test_a_run_without_a_model_says_so(settings: Settings) -> None:
    run = find_or_create_run(settings, "empty", tags={}, params={})
    with pytest.raises(ModelNotFoundError, match="expected a run that trained to its end"):
        resolve_model(f"runs:/{run.run_id}", settings)


def test_registering_a_run_again_makes_no_second_version(settings: Settings, versions: dict[str, str]) -> None:
    assert register_model(settings, name="gwm", run_id=versions["first"]).version == 1
    assert [model.version for model in list_models(settings, name="gwm")] == [1, 2]


def test_long_lists_come_page_by_page() -> None:
    pages = {None: PagedList([1, 2], "second"), "second": PagedList([3], None)}
    assert list(_every(lambda _, page_token=None: pages[page_token], None)) == [1, 2, 3]


def test_alias_is_found_and_moves(settings: Settings, versions: dict[str, str]) -> None:
    champion = find_alias(settings, name="gwm", alias="champion")
    assert champion is not None
    assert (champion.version, champion.run_id) == (2, versions["second"])
    assert find_alias(settings, name="gwm", alias="nobody") is None
    assert find_alias(settings, name="unknown", alias="champion") is None
    set_alias(settings, name="gwm", alias="moving", version=2)
    set_alias(settings, name="gwm", alias="moving", version=1)
    assert resolve_model("models:/gwm@moving", settings) == resolve_model("models:/gwm/1", settings)


def test_mlflow_serves_the_model_without_any_pickle(
    settings: Settings, versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", settings.tracking_uri)
    served = mlflow.pyfunc.load_model("models:/gwm@champion")
    images = np.stack([frame_of(clip, 3) for clip in range(3)])
    answer = served.predict(images)
    method = load_model(str(settings.home_path / "packages" / "second")).method
    expected = method.segment(torch.from_numpy(images).permute(0, 3, 1, 2).float()).probabilities
    np.testing.assert_allclose(answer["probabilities"], expected.numpy(), atol=1e-6)
    assert answer["masks"].shape == (3, 48, 80)
    assert answer["masks"].dtype == bool
    stored = resolve_model("models:/gwm@champion", settings).parents[1]
    names = {path.name for path in stored.rglob("*") if path.is_file()}
    assert {"MLmodel", "model.safetensors", "model.json"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]


def test_served_images_are_checked(settings: Settings, versions: dict[str, str]) -> None:
    served = ServedModel(load_model(str(settings.home_path / "packages" / "first")))
    for images in (np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)):
        with pytest.raises(InputError, match="predict"):
            served.predict(images)  # type: ignore[arg-type]
