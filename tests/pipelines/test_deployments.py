"""prefect.yaml against the flows it names."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from tests.architecture import ROOT

FLOWS = [
    *("ingest-footage", "train-gwm", "evaluate-model", "ablate-gwm", "segment-footage", "adapt-gwm"),
    "retrain-on-new-footage",
    "verify-dataset",
    "export-dataset",
]
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    deployment["name"]: deployment for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
}


def test_every_flow_is_deployed() -> None:
    assert sorted(DEPLOYMENTS) == sorted(FLOWS)


@pytest.mark.parametrize("name", FLOWS)
def test_a_deployment_bears_its_flows_name_and_gives_parameters_it_has(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    deployment = DEPLOYMENTS[name]
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.name == name
    assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
    for trigger in deployment.get("triggers", []):
        assert set(trigger["parameters"]) <= set(flow.parameters.properties)


@pytest.mark.parametrize("name", ["ingest-footage", "retrain-on-new-footage"])
def test_scheduled_runs_do_not_pile_up(name: str) -> None:
    # The strategy must lie beneath the limit: elsewhere Prefect ignores it without a word.
    assert DEPLOYMENTS[name]["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert DEPLOYMENTS[name]["schedules"]
    assert "concurrency_options" not in DEPLOYMENTS[name]


def test_new_footage_starts_retraining() -> None:
    (trigger,) = DEPLOYMENTS["retrain-on-new-footage"]["triggers"]
    assert trigger["expect"] == ["footage.arrived"]


@pytest.mark.parametrize("name", FLOWS)
def test_flows_are_tables_of_contents(name: str) -> None:
    import ast

    path, _, function = DEPLOYMENTS[name]["entrypoint"].partition(":")
    tree = ast.parse((ROOT / path).read_text())
    (definition,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    steps = definition.body[1:]  # after the docstring
    assert len(steps) <= 12
    num_lines = (definition.end_lineno or 0) - steps[0].lineno
    assert num_lines <= 20  # ten of them name the arguments of one step
