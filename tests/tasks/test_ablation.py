"""The paper's tables as data, and what running one comes to; nothing is trained here."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.ablation import TABLES, choose_rows, find_table, require_free_keys
from tasks.ablation_plan import AblationPlan, AblationRequest, plan_ablation, refuse_dataset, refuse_seen
from tasks.ablation_results import RowOutcome, notes, read_outcome, table_rows, to_html, to_json, to_markdown
from tasks.catalog import open_dataset
from tasks.config import ExperimentConfig, resolve_experiment
from tasks.errors import AblationError, ConfigError, DatasetError
from tasks.features import MergingFeatures
from tasks.storage import location
from tasks.train import default_training_id
from tests.tasks.moving_square import square_clip, write_davis
from tests.tasks.training_data import write_dataset


def resolve(overrides: Sequence[str]) -> ExperimentConfig:
    return resolve_experiment({"name": "base"}, overrides)


@pytest.fixture
def request_of(tmp_path: Path) -> Any:
    """A request on a small dataset and a small benchmark in the layout of DAVIS."""
    write_davis(tmp_path / "davis", {"camel": square_clip(5), "cows": square_clip(5)})
    common = {
        "experiment": "base",
        "benchmark": "davis16",
        "root": str(tmp_path / "davis"),
        "dataset": write_dataset(tmp_path / "dataset", num_frames=(5, 4)),
    }
    return lambda table, **changes: AblationRequest(**{**common, "table": table, **changes})


def planned(request: AblationRequest, folder: Path) -> AblationPlan:
    return plan_ablation(request, resolve, location(folder))


@pytest.mark.parametrize("name", list(TABLES))
def test_every_row_is_an_experiment_of_its_own(name: str) -> None:
    table = find_table(name)
    experiments = [resolve(row.overrides).fingerprint() for row in table.rows]
    told_apart = [
        (experiment, row.estimator, row.baseline, row.adapt_steps)
        for experiment, row in zip(experiments, table.rows, strict=True)
    ]
    assert len(set(told_apart)) == len(table.rows) == len({row.name for row in table.rows})
    for row in table.rows:
        for paper in row.paper.values():
            assert 0.1 < paper.j < 0.9
            assert paper.oracle is None or paper.oracle >= paper.j
            assert "Table" in paper.source


def test_the_papers_numbers_stand_beside_their_rows() -> None:
    """GWM, Tables 2 and 6: J on DAVIS, with the oracle where there is one."""
    quadratic = {row.name: row.paper["davis16"] for row in find_table("segments").rows}
    assert {name: (paper.j, paper.oracle) for name, paper in quadratic.items()} == {
        "k2": (0.745, 0.745),
        "k3": (0.778, 0.795),
        "k4": (0.795, 0.815),
        "k5": (0.76, 0.799),
    }
    clusters = {row.name: row.paper["fbms59"].j for row in find_table("dino-clustering").rows}
    assert clusters == {"spectral-2": 0.2745, "k-means-4": 0.488, "k-means-2": 0.3825}


def test_rows_are_chosen_in_the_tables_order() -> None:
    table = find_table("motion-models-x-objectives")
    names = [row.name for row in choose_rows(table, ["quadratic-blended", "constant-mixture"])]
    assert names == ["constant-mixture", "quadratic-blended"]
    with pytest.raises(ConfigError, match="rows cubic are not in table motion-models: expected some of constant"):
        choose_rows(find_table("motion-models"), ["cubic"])
    with pytest.raises(ConfigError, match="no ablation table 'gaps': expected one of motion-models"):
        find_table("gaps")


def test_an_override_of_what_the_table_varies_is_refused() -> None:
    table = find_table("objectives")
    require_free_keys(table, ["optimisation.num_steps=5", "method.objective_typo=1"])
    with pytest.raises(ConfigError, match=r"--set 'method.objective=blended': table objectives varies"):
        require_free_keys(table, ["method.objective=blended"])


def test_a_row_is_known_by_what_decides_its_numbers(request_of: Any, tmp_path: Path) -> None:
    by_segments = planned(request_of("segments"), tmp_path)
    by_model = planned(request_of("motion-models"), tmp_path)
    k4 = next(row for row in by_segments.rows if row.row.name == "k4")
    quadratic = next(row for row in by_model.rows if row.row.name == "quadratic")
    assert k4.scores == quadratic.scores  # the same training and the same evaluation: done once
    assert len({row.scores for row in by_segments.rows}) == 4
    training_id = default_training_id(resolve(k4.overrides), str(k4.dataset), int(k4.version or 0))
    assert training_id in k4.scores
    for changes in (
        {"sequences": ("camel",)},
        {"merging": MergingFeatures(name="colour")},
        {"overrides": ("optimisation.seed=7",)},
    ):
        assert planned(request_of("segments", **changes), tmp_path).rows[2].scores != k4.scores


def test_a_dataset_of_another_flow_has_to_be_the_same_footage(request_of: Any, tmp_path: Path) -> None:
    reference = open_dataset(request_of("flow-sources").dataset)
    arflow = next(row for row in find_table("flow-sources").rows if row.name == "arflow")

    def made(**recipe: Any) -> Any:
        videos = (replace(video, recipe=video.recipe.model_copy(update=recipe)) for video in reference.videos)
        return replace(reference, uri="other", videos=tuple(videos))

    same = made(flow_estimator="arflow", flow_weights_sha256="0" * 64)
    assert refuse_dataset(arflow, same, reference) is None
    assert "expected arflow: gwm ingest" in str(refuse_dataset(arflow, reference, reference))
    assert "differ in max_side" in str(refuse_dataset(arflow, made(flow_estimator="arflow", max_side=64), reference))
    fewer = replace(same, videos=same.videos[:1])
    assert "hold different videos" in str(refuse_dataset(arflow, fewer, reference))

    plan = planned(request_of("flow-sources"), tmp_path)
    assert [row.row.name for row in plan.rows if row.refusal is None] == ["dis"]
    with pytest.raises(DatasetError):
        planned(request_of("flow-sources", datasets={"pwc": str(tmp_path / "none")}), tmp_path)


def test_baselines_need_no_dataset_and_trainings_do(request_of: Any, tmp_path: Path) -> None:
    plan = planned(request_of("dino-clustering", dataset=None), tmp_path)
    assert [(row.dataset, row.refusal) for row in plan.rows] == [(None, None)] * 3
    with pytest.raises(ConfigError, match="give the dataset with --dataset"):
        planned(request_of("segments", dataset=None), tmp_path)


def test_what_generalises_was_not_trained_on(request_of: Any, tmp_path: Path) -> None:
    plan = planned(request_of("generalisation"), tmp_path)
    zero_shot, adapted = plan.rows
    assert zero_shot.refusal is adapted.refusal is None  # clip_0 and clip_1 are trained on, camel and cows scored
    assert (zero_shot.dataset, zero_shot.version) == (adapted.dataset, adapted.version)
    assert zero_shot.scores != adapted.scores
    assert adapted.row.adapt_steps == 20
    trained_on = open_dataset(str(zero_shot.dataset))
    assert "holds 1 of the 2 sequences that are scored, such as clip_1" in str(
        refuse_seen(trained_on, ["camel", "clip_1"])
    )


def test_ours_stands_beside_the_papers(request_of: Any, tmp_path: Path) -> None:
    plan = planned(request_of("segments", rows=("k2", "k4")), tmp_path)
    k2, k4 = plan.rows
    assert read_outcome(k4, "reused") is None
    location(k4.scores).write_bytes(json.dumps(evaluation(k4.scores)).encode())
    done = read_outcome(k4, "reused")
    assert done is not None
    outcomes = [RowOutcome(row=k2.row, status="failed", reason="TrainingError: a | b\nc"), done]

    failed, shown = table_rows(plan, outcomes)
    assert (shown["J label-free"], shown["J ground truth per frame"], shown["J oracle per frame"]) == (0.6, 0.5, 0.7)
    assert (shown["J paper"], shown["oracle paper"], shown["outcome"]) == (0.795, 0.815, "reused")
    assert (failed["J label-free"], failed["J paper"]) == (None, 0.745)
    assert any("ours over 2 sequences of davis16" in note for note in notes(plan, outcomes))
    assert "checkpoint of k4: last step" in notes(plan, outcomes)
    assert "| K=4, quadratic | 60.0 | 50.0 |  | 70.0 | 79.5 | 81.5 | gwm | reused |" in to_markdown(plan, outcomes)
    assert "failed: TrainingError: a \\| b c |" in to_markdown(plan, outcomes)
    assert "| row | sequence | motion | border | oracle per frame |" in to_markdown(plan, outcomes)
    assert "| K=4, quadratic | camel | 60.0 | 40.0 | 70.0 |" in to_markdown(plan, outcomes)
    page = to_html(plan, outcomes)
    assert "79.5" in page
    assert "TrainingError: a | b" in page
    document = json.loads(to_json(plan, outcomes))
    assert document["rows"][1]["paper"]["j"] == 0.795
    assert document["rows"][1]["overrides"] == ["method.motion_model=quadratic", "method.num_segments=4"]


def evaluation(reference: str) -> dict[str, Any]:
    """The part of an evaluation's JSON that a table reads, with scores that it must leave out."""
    label = {"measure": "J", "protocol": "gwm"}
    chosen = {"label-free": 0.6, "ground-truth-per-frame": 0.5, "oracle-per-frame": 0.7}
    scores = [{**label, "foreground": name, "value": value} for name, value in chosen.items()]
    others = [{**score, **other, "value": 0.1} for score in scores for other in ({"measure": "F"}, {"protocol": "rcf"})]
    best = {"measure": "J", "foreground": "oracle-per-frame", "mean_by_protocol": {"gwm": 0.7, "rcf": 0.1}}
    camel = {"name": "camel", "label_free_rules": {"motion": 0.6, "border": 0.4}, "scores": [best]}
    return {
        "headline": scores[0],
        "scores": others + scores,
        "checkpoint": "last step",
        "model": {"reference": reference},
        "sequences": [camel],
    }


def test_the_error_of_a_table_carries_it_between_processes() -> None:
    error = pickle.loads(pickle.dumps(AblationError("1 of 2 rows failed", [{"row": "k2"}])))
    assert (str(error), error.table) == ("1 of 2 rows failed", [{"row": "k2"}])
