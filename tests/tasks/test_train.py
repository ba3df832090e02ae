"""A whole training in this process, without Ray: what it leaves behind, and how it goes on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.checkpoint import list_checkpoint_steps
from tasks.config import ExperimentConfig
from tasks.errors import ConfigError, DatasetError, ModelNotFoundError, TrainingError
from tasks.model_package import load_model
from tasks.registry import list_models, resolve_model
from tasks.run_folder import ProgressWatcher, RunFolder, TrainingProgress
from tasks.settings import Settings
from tasks.storage import location
from tasks.tracking import mlflow_client
from tasks.train import TrainingResult, default_training_id, train
from tests.tasks.training_data import local_settings, tiny_experiment, write_dataset

EXPERIMENT = tiny_experiment()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local_settings(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def unbroken(dataset: str, settings: Settings) -> TrainingResult:
    return train(EXPERIMENT, dataset, None, settings, training_id="unbroken", register_as="tiny")


def curves(settings: Settings, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every curve of a run but the pace, as (step, value)."""
    client = mlflow_client(settings)
    keys = [key for key in client.get_run(run_id).data.metrics if key != "train/steps_per_second"]
    return {key: [(point.step, point.value) for point in client.get_metric_history(run_id, key)] for key in keys}


def run_of(settings: Settings, training_id: str) -> RunFolder:
    return RunFolder(root=location(settings.runs_root) / training_id)


def weights(run: RunFolder) -> bytes:
    return (run.model / "model.safetensors").read_bytes()


class Interrupt:
    """Ends a training from outside at a given step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, progress: TrainingProgress) -> None:
        if progress.step == self.step:
            raise KeyboardInterrupt


def test_result_names_a_model_that_loads(unbroken: TrainingResult, dataset: str, settings: Settings) -> None:
    assert (unbroken.num_steps, unbroken.dataset_version, unbroken.resumed_from_step) == (12, 0, 0)
    assert not unbroken.already_finished
    loaded = load_model(unbroken.model_uri)
    assert loaded.experiment == EXPERIMENT
    assert loaded.provenance.training_id == "unbroken"
    assert loaded.provenance.step == 12
    assert (loaded.provenance.dataset_uri, loaded.provenance.dataset_version) == (dataset, 0)
    assert loaded.roles is not None
    assert loaded.roles.num_segments == loaded.method.num_segments
    assert loaded.provenance.mlflow_run_id == unbroken.run_id
    assert (loaded.provenance.code_version or "").startswith(("git:", "wheel:"))
    assert list_checkpoint_steps(run_of(settings, "unbroken").checkpoints) == [8, 12]


def test_mlflow_run_is_a_full_record(
    unbroken: TrainingResult, dataset: str, settings: Settings, tmp_path: Path
) -> None:
    client = mlflow_client(settings)
    run = client.get_run(unbroken.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimisation.num_steps"] == "12"
    assert run.data.params["method.base_channels"] == "4"
    assert run.data.tags["gwm.dataset_uri"] == dataset
    assert run.data.tags["gwm.dataset_version"] == "0"
    assert run.data.tags["gwm.fingerprint"] == EXPERIMENT.fingerprint()
    assert run.data.tags["gwm.code_version"].startswith(("git:", "wheel:"))
    assert run.data.tags["gwm.weights_sha256"] == load_model(unbroken.model_uri).weights_sha256
    resolved = client.download_artifacts(unbroken.run_id, "experiment.json", str(tmp_path))
    assert ExperimentConfig.model_validate(json.loads(Path(resolved).read_text())) == EXPERIMENT
    assert [file.path for file in client.list_artifacts(unbroken.run_id, "pictures")] == ["pictures/step-000012.png"]
    found = curves(settings, unbroken.run_id)
    assert set(found) == {
        "train/loss",
        "train/flow_reconstruction",
        "train/gradient_norm",
        "train/learning_rate",
        "train/skipped_steps",
    }
    assert all([step for step, _ in points] == [2, 4, 6, 8, 10, 12] for points in found.values())
    assert found["train/loss"][-1][1] == unbroken.metrics["train/loss"]
    weight = EXPERIMENT.method.loss_weight
    for (_, loss), (_, unweighted) in zip(found["train/loss"], found["train/flow_reconstruction"], strict=True):
        assert loss == pytest.approx(weight * unweighted, rel=1e-5)


def test_model_is_registered_once(unbroken: TrainingResult, dataset: str, settings: Settings) -> None:
    assert (unbroken.registered_as, unbroken.registered_version) == ("tiny", 1)
    again = train(EXPERIMENT, dataset, 0, settings, training_id="unbroken", register_as="tiny")
    assert again.registered_version == 1
    assert [model.version for model in list_models(settings, name="tiny")] == [1]
    fetched = resolve_model("models:/tiny/1", settings)
    assert (fetched / "model.safetensors").read_bytes() == weights(run_of(settings, "unbroken"))


def test_a_finished_training_is_not_trained_again(unbroken: TrainingResult, dataset: str, settings: Settings) -> None:
    seen: list[TrainingProgress] = []
    again = train(EXPERIMENT, dataset, None, settings, training_id="unbroken", on_progress=seen.append)
    assert again.already_finished
    assert seen == []
    assert vars(again) == {**vars(unbroken), "already_finished": True}


def test_an_interrupted_training_continues_bit_for_bit(
    unbroken: TrainingResult, dataset: str, settings: Settings
) -> None:
    for step, checkpoints in ((2, []), (6, [4]), (10, [4, 8])):
        with pytest.raises(KeyboardInterrupt):
            train(EXPERIMENT, dataset, None, settings, training_id="broken", on_progress=Interrupt(step))
        assert list_checkpoint_steps(run_of(settings, "broken").checkpoints) == checkpoints
    client = mlflow_client(settings)
    found = client.search_runs(
        [client.get_experiment_by_name("gwm").experiment_id], "tags.`gwm.training_id` = 'broken'"
    )
    assert [run.info.status for run in found] == ["KILLED"]
    result = train(EXPERIMENT, dataset, None, settings, training_id="broken")
    assert result.resumed_from_step == 8
    assert result.run_id == found[0].info.run_id
    assert result.metrics == unbroken.metrics
    assert curves(settings, result.run_id) == curves(settings, unbroken.run_id)
    assert weights(run_of(settings, "broken")) == weights(run_of(settings, "unbroken"))
    assert client.get_run(result.run_id).info.status == "FINISHED"


def test_interruption_within_a_window_of_curves_changes_nothing(
    unbroken: TrainingResult, dataset: str, settings: Settings
) -> None:
    """Checkpoints every 3 steps cut the windows of 2 in half; their sums must travel with the checkpoint."""
    recording = EXPERIMENT.recording.model_copy(update={"checkpoint_every_steps": 3})
    experiment = EXPERIMENT.model_copy(update={"recording": recording})
    with pytest.raises(KeyboardInterrupt):
        train(experiment, dataset, None, settings, training_id="window", on_progress=Interrupt(4))
    result = train(experiment, dataset, None, settings, training_id="window")
    assert result.resumed_from_step == 3
    assert curves(settings, result.run_id) == curves(settings, unbroken.run_id)


def test_progress_counts_to_the_end(dataset: str, settings: Settings) -> None:
    seen: list[TrainingProgress] = []
    train(tiny_experiment(num_steps=5), dataset, None, settings, training_id="progress", on_progress=seen.append)
    assert [progress.step for progress in seen] == [2, 4, 5]
    assert all(progress.num_steps == 5 and progress.steps_per_second > 0 and progress.loss > 0 for progress in seen)
    assert seen[-1].eta_seconds == 0


def test_loss_falls(dataset: str, settings: Settings) -> None:
    result = train(tiny_experiment(num_steps=60), dataset, None, settings, training_id="falls")
    losses = [value for _, value in curves(settings, result.run_id)["train/loss"]]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_training_starts_from_another_model(unbroken: TrainingResult, dataset: str, settings: Settings) -> None:
    experiment = tiny_experiment(num_steps=1)
    cold = train(experiment, dataset, None, settings, training_id="cold")
    warm = train(experiment, dataset, None, settings, training_id="warm", initial_model="models:/tiny/1")
    assert warm.metrics["train/loss"] != cold.metrics["train/loss"]
    assert load_model(warm.model_uri).provenance.initial_model == "models:/tiny/1"
    with pytest.raises(ModelNotFoundError, match="models:/tiny/9"):
        train(experiment, dataset, None, settings, training_id="nowhere", initial_model="models:/tiny/9")


def test_bf16_and_gaps_of_released_code_train(dataset: str, settings: Settings) -> None:
    base = tiny_experiment(num_steps=2, gap_sampling="released", horizontal_flip=True, cache_mb=0)
    experiment = base.model_copy(update={"optimisation": base.optimisation.model_copy(update={"precision": "bf16"})})
    assert train(experiment, dataset, None, settings, training_id="bf16").metrics["train/loss"] > 0


def test_clips_too_short_for_the_first_gap_are_trained_on_and_pictured(settings: Settings, tmp_path: Path) -> None:
    short = write_dataset(tmp_path / "short", num_frames=(2, 2))
    assert train(tiny_experiment(num_steps=2, gaps=(2, 1)), short, None, settings, training_id="short").num_steps == 2


def test_other_settings_under_the_same_id_are_refused(
    unbroken: TrainingResult, dataset: str, settings: Settings
) -> None:
    with pytest.raises(
        ConfigError, match=r"'unbroken' was begun otherwise: experiment\.optimisation\.num_steps was 12, now 13"
    ):
        train(tiny_experiment(num_steps=13), dataset, None, settings, training_id="unbroken")


def test_default_ids_follow_what_decides_the_outcome() -> None:
    ids = {
        default_training_id(EXPERIMENT, "a", 0),
        default_training_id(tiny_experiment(num_steps=13), "a", 0),
        default_training_id(EXPERIMENT, "b", 0),
        default_training_id(EXPERIMENT, "a", 1),
        default_training_id(EXPERIMENT, "a", 0, "models:/tiny/1"),
    }
    assert len(ids) == 5
    assert default_training_id(EXPERIMENT, "a", 0) in ids
    assert all(name.startswith("tiny-v") for name in ids)


@pytest.mark.parametrize("name", ["../up", ".", "a b", "x" * 200])
def test_training_ids_that_are_no_folder_names_are_refused(dataset: str, settings: Settings, name: str) -> None:
    with pytest.raises(ConfigError, match="training id"):
        train(EXPERIMENT, dataset, None, settings, training_id=name)


def test_mistakes_are_told_before_anything_is_trained(dataset: str, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        train(EXPERIMENT, str(tmp_path / "nothing"), None, settings)
    with pytest.raises(DatasetError):
        train(EXPERIMENT, dataset, 99, settings)
    with pytest.raises(DatasetError, match=r"training wants \[3\] too"):
        train(tiny_experiment(gaps=(1, 3)), dataset, None, settings, training_id="gaps")
    status = mlflow_client(settings).search_runs(["1"], "tags.`gwm.training_id` = 'gaps'")[0]
    assert status.info.status == "FAILED"
    assert "training wants" in status.data.tags["gwm.error"]


def test_diverged_training_ends_with_its_cause(dataset: str, settings: Settings) -> None:
    base = tiny_experiment(num_steps=40)
    wild = base.optimisation.model_copy(update={"learning_rate": 1e30, "gradient_clip_norm": 1e30, "warmup_steps": 0})
    with pytest.raises(TrainingError, match="not finite in 25 steps in a row"):
        train(base.model_copy(update={"optimisation": wild}), dataset, None, settings, training_id="wild")


def test_a_newer_attempt_stops_the_older(dataset: str, settings: Settings) -> None:
    def take_over(progress: TrainingProgress) -> None:
        run_of(settings, "twice").claim("somebody else")

    with pytest.raises(TrainingError, match="'twice' was taken over by another process"):
        train(EXPERIMENT, dataset, None, settings, training_id="twice", on_progress=take_over)
    assert list_checkpoint_steps(run_of(settings, "twice").checkpoints) == []


def test_errors_travel_through_the_run_folder(tmp_path: Path) -> None:
    run = RunFolder(root=location(tmp_path))
    assert run.failure_of("a") is None
    run.record_failure("a", DatasetError("no flow over gap 3"))
    found = run.failure_of("a")
    assert isinstance(found, DatasetError)
    assert str(found) == "no flow over gap 3"
    assert run.failure_of("b") is None


def test_watcher_passes_on_what_is_new(tmp_path: Path) -> None:
    run = RunFolder(root=location(tmp_path))
    details: dict[str, Any] = {"num_steps": 9, "loss": 1.0, "steps_per_second": 2.0, "eta_seconds": 3.0}
    run.write_progress(TrainingProgress(step=1, **details))  # left by an earlier attempt
    seen: list[int] = []
    with ProgressWatcher(run, lambda progress: seen.append(progress.step), every_seconds=0.01):
        run.write_progress(TrainingProgress(step=9, **details))
    assert seen == [9]
    with ProgressWatcher(run, None):
        pass
