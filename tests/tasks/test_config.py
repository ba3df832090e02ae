"""Experiments: presets, overrides, and every way to misspell one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tasks.config import ExperimentConfig, available_presets, load_experiment, resolve_experiment
from tasks.errors import REJECTION_REASONS, ConfigError, FootageError
from tasks.settings import Settings

PRESETS = Path(__file__).resolve().parents[2] / "pipelines" / "experiments"


@pytest.mark.parametrize("name", available_presets(PRESETS))
def test_every_preset_resolves_and_says_what_it_is(name: str) -> None:
    experiment = load_experiment(name, PRESETS)
    assert experiment.name == name
    header = (PRESETS / f"{name}.yaml").read_text()
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert word in header, f"{name}.yaml does not state {word!r}"


def test_presets_hold_only_what_differs_from_the_defaults() -> None:
    defaults = ExperimentConfig(name="x").model_dump(mode="json")
    for name in available_presets(PRESETS):
        for path, value in _leaves(yaml.safe_load((PRESETS / f"{name}.yaml").read_text()) or {}):
            default = defaults
            for key in path:
                default = default[key]
            assert value != default, f"{name}.yaml repeats the default of {'.'.join(path)}"


def _leaves(tree: dict[str, object], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    found: list[tuple[tuple[str, ...], object]] = []
    for key, value in tree.items():
        found += _leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


def test_overrides_are_typed_and_change_the_fingerprint() -> None:
    plain = resolve_experiment({"name": "x"})
    changed = resolve_experiment(
        {"name": "x"}, ["optimisation.num_steps=7", "method.objective=blended", "data.gaps=[1, -1]"]
    )
    assert changed.optimisation.num_steps == 7
    assert changed.method.objective == "blended"
    assert changed.data.gaps == (1, -1)
    assert plain.fingerprint() != changed.fingerprint()
    assert plain.fingerprint() == resolve_experiment({"name": "x"}).fingerprint()


def test_a_resolved_experiment_survives_json() -> None:
    experiment = resolve_experiment({"name": "x"}, ["method.image_size=[64, 112]"])
    assert resolve_experiment(experiment.model_dump(mode="json")) == experiment


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimisation.num_step=7", "num_step: no such key; expected one of num_steps, "),
        ("method.segments=3", "method.segments: no such key; expected one of .*num_segments"),
        ("optimisation.num_steps=[", "is not YAML"),
        ("method.objektive=mixture", "objektive"),
        ("method.objective=mixed", "mixture"),
        ("method.num_segments=1", "num_segments=1"),
        ("method.maskformer.backbon=swin-tiny", "maskformer.backbon: no such key; expected one of backbone, "),
        ("method.maskformer.backbone=vgg", "method.maskformer.backbone: Input should be 'dino-vit-b8'.*got 'vgg'"),
        ("method.maskformer.channels=48", "channels=48: expected a multiple of the 32 groups"),
        ("method.maskformer.channels=64", "has no effect on network='unet'"),
        ("optimisation.learning_rate=-1", "greater than 0"),
        ("optimisation.num_steps", "expected key.path=value"),
        ("name.x=3", "is a value, not a group"),
        ("data.gaps=[0, 1]", "distinct frame gaps other than 0"),
    ],
)
def test_a_wrong_override_says_what_was_expected(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_experiment({"name": "x"}, [override])


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'nope'.*debug"):
        load_experiment("nope", PRESETS)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GWM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "2")
    settings = Settings()
    assert settings.train_workers == 2
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}"
    assert Settings(mlflow_tracking_uri="http://127.0.0.1:5000").artifact_root is None
    with pytest.raises(ValidationError):
        Settings(train_workers=-1)


def test_errors_survive_pickling_between_processes() -> None:
    error = pickle.loads(pickle.dumps(FootageError("corrupt", "frame 7 of a.mp4")))
    assert (error.reason, error.detail) == ("corrupt", "frame 7 of a.mp4")
    assert "corrupt" in REJECTION_REASONS
