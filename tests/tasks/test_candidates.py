"""A training that keeps checkpoints, compares them on frames it never saw, and makes one of them its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.agreement import agreement_along_flow
from model.methods.gwm import resize_flow
from tasks.candidate_costs import find_candidates
from tasks.candidates import NUM_PAIRS
from tasks.catalog import open_dataset
from tasks.checkpoint_choice import IMPORTED, choose_checkpoint
from tasks.config import ExperimentConfig
from tasks.dataset import FrameReader
from tasks.errors import ModelNotFoundError, TrainingError
from tasks.evaluation_run import describe_model
from tasks.loader import TrainingLoader
from tasks.model_package import Provenance, load_model, save_model
from tasks.run_folder import RunFolder, TrainingProgress
from tasks.sampling import SampleKey, distinct_samples, plan_sampling, split_frames
from tasks.settings import Settings
from tasks.storage import location
from tasks.tracking import mlflow_client
from tasks.train import TrainingResult, train
from tests.tasks.test_train import Interrupt, curves, run_of, weights
from tests.tasks.tiny_models import saved_model
from tests.tasks.training_data import local_settings, tiny_experiment, write_dataset

LENGTHS = (8, 6, 7)


def choosing(rule: str, num_steps: int = 12) -> ExperimentConfig:
    experiment = tiny_experiment(num_steps=num_steps, held_out_frames_percent=30)
    recording = experiment.recording.model_copy(update={"checkpoint_choice": rule, "num_candidates": 4})
    return experiment.model_copy(update={"recording": recording})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("dataset"), num_frames=LENGTHS)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local_settings(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def trained(dataset: str, settings: Settings) -> TrainingResult:
    return train(choosing("held_out_loss"), dataset, None, settings, training_id="chosen")


def held_out_keys(dataset: str) -> tuple[SampleKey, ...]:
    plan = plan_sampling(
        seed=0,
        clips=FrameReader(open_dataset(dataset)).clips,
        gaps=(1, -1, 2, -2),
        held_out_percent=30,
        part="held_out",
    )
    return distinct_samples(plan, NUM_PAIRS)


def test_training_is_never_shown_a_held_out_frame(dataset: str) -> None:
    reader, experiment = FrameReader(open_dataset(dataset)), choosing("stability")
    loader = TrainingLoader(reader, lambda pair: {}, experiment)
    shown = {(key.clip, key.frame) for step in range(400) for key in loader.keys(step)}
    aside = {(key.clip, key.frame) for key in held_out_keys(dataset)}
    lengths = [clip.num_frames for clip in reader.clips]
    assert sorted(lengths) == sorted(LENGTHS)
    assert not shown & aside
    assert shown | aside == {(clip, frame) for clip, length in enumerate(lengths) for frame in range(length)}
    assert [len(split_frames(length, 30)["held_out"]) for length in (8, 6, 7, 1)] == [3, 2, 3, 1]


def test_the_model_is_the_candidate_that_the_rule_prefers(trained: TrainingResult, settings: Settings) -> None:
    run = run_of(settings, "chosen")
    provenance = load_model(trained.model_uri).provenance
    assert [scores.step for scores in provenance.candidates] == [3, 6, 9, 12]
    best = choose_checkpoint("held_out_loss", provenance.candidates)
    assert best.held_out_loss == min(scores.held_out_loss for scores in provenance.candidates)
    assert (trained.step, provenance.step) == (best.step, best.step)
    assert weights(run) == (run.candidate(best.step) / "model.safetensors").read_bytes()
    sentence = f"held-out-loss: step {best.step} of 12, chosen without labels"
    assert trained.checkpoint == provenance.checkpoint == sentence
    assert describe_model(trained.model_uri, None).checkpoint == sentence


def test_scores_are_those_of_the_held_out_pairs(trained: TrainingResult, dataset: str, settings: Settings) -> None:
    scores = load_model(trained.model_uri).provenance.candidates[1]
    candidate = load_model(run_of(settings, "chosen").candidate(scores.step))
    reader, keys = FrameReader(open_dataset(dataset)), held_out_keys(dataset)
    assert len(keys) == len(set(keys)) > 20
    losses, agreements = [], []
    with torch.no_grad():
        for key in keys:
            pair = reader.read_pair(key.clip, key.frame, key.gap)
            batch = {name: value[None] for name, value in candidate.method.prepare(pair).items()}
            losses.append(float(candidate.method.training_loss(batch).total))
            later = reader.read_image(key.clip, key.frame + key.gap)
            now, then = (candidate.method.segment(image[None].float()).probabilities for image in (pair.image, later))
            flow = resize_flow(pair.flow, (32, 56), "area")
            agreements.append(float(agreement_along_flow(now, then, flow[None])))
    assert scores.held_out_loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    # images are rounded to whole levels there, as they are for training: single pixels may change their segment
    assert scores.temporal_agreement == pytest.approx(sum(agreements) / len(agreements), abs=0.02)


def test_choice_and_scores_are_in_mlflow(trained: TrainingResult, settings: Settings) -> None:
    tags = mlflow_client(settings).get_run(trained.run_id).data.tags
    assert (tags["gwm.checkpoint"], tags["gwm.step"]) == (trained.checkpoint, str(trained.step))
    found = curves(settings, trained.run_id)
    for name in ("held_out_loss", "temporal_agreement", "neighbour_agreement", "stability"):
        assert [step for step, _ in found[f"candidates/{name}"]] == [3, 6, 9, 12]


def test_a_training_cut_short_chooses_the_same(trained: TrainingResult, dataset: str, settings: Settings) -> None:
    """Killed between two checkpoints, and then while its candidates are compared."""
    with pytest.raises(KeyboardInterrupt):
        train(choosing("held_out_loss"), dataset, None, settings, training_id="again", on_progress=Interrupt(10))

    def while_compared(progress: TrainingProgress) -> None:
        if progress.note.startswith("2 of 4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(choosing("held_out_loss"), dataset, None, settings, training_id="again", on_progress=while_compared)
    again = train(choosing("held_out_loss"), dataset, None, settings, training_id="again")
    assert weights(run_of(settings, "again")) == weights(run_of(settings, "chosen"))
    assert (again.step, again.checkpoint) == (trained.step, trained.checkpoint)
    chosen, repeated = (load_model(uri).provenance.candidates for uri in (trained.model_uri, again.model_uri))
    assert chosen == repeated


def test_candidates_that_are_gone_are_missed(trained: TrainingResult, dataset: str, settings: Settings) -> None:
    assert [each.scores.step for each in find_candidates(trained.model_uri, settings)] == [3, 6, 9, 12]
    with pytest.raises(ModelNotFoundError, match=r"no checkpoint after 3, 6, 9, 12 steps .* set GWM_RUNS_URI"):
        find_candidates(trained.model_uri, settings.model_copy(update={"runs_uri": str(settings.home / "elsewhere")}))
    experiment = choosing("stability")
    with pytest.raises(KeyboardInterrupt):
        train(experiment, dataset, None, settings, training_id="gone", on_progress=Interrupt(10))
    RunFolder(root=run_of(settings, "gone").root).candidate(6).delete()
    with pytest.raises(TrainingError, match=r"lacks the checkpoints after \[6\] steps"):
        train(experiment, dataset, None, settings, training_id="gone")


def test_other_models_say_how_they_were_chosen(tmp_path: Path, settings: Settings) -> None:
    folder = saved_model(tmp_path / "earlier")
    assert describe_model(folder, None).checkpoint == "last step"
    with pytest.raises(ModelNotFoundError, match="was not chosen among several checkpoints: train with --checkpoint"):
        find_candidates(folder, settings)
    loaded = load_model(folder)
    save_model(
        location(tmp_path / "imported"),
        loaded.method,
        experiment=loaded.experiment,
        provenance=Provenance(),  # type: ignore[arg-type]
    )
    assert describe_model(str(tmp_path / "imported"), None).checkpoint == IMPORTED
    description = json.loads((Path(folder) / "model.json").read_text())
    for added in ("checkpoint", "candidates"):  # an earlier release wrote neither
        del description["provenance"][added]
    (Path(folder) / "model.json").write_text(json.dumps(description))
    assert describe_model(folder, None).checkpoint == "last step"
