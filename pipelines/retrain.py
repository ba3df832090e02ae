"""Flow ``retrain-on-new-footage``: ingest what is new, train on from the champion, keep the better of the two.

Whether there is something new is asked of the record, not of this run's ingest: a run that was killed after its ingest
is made up for by the next one, and a dataset version that was decided on is not trained on twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefect import flow, task
from prefect.runtime import flow_run

from pipelines.evaluate import find_model, score_sequences
from pipelines.ingest import ingest_footage
from pipelines.progress import publish_table
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import EXPERIMENTS, load_settings
from pipelines.train import run_training
from tasks.benchmarks import open_benchmark
from tasks.catalog import open_dataset
from tasks.config import load_experiment
from tasks.devices import own_device
from tasks.errors import ConfigError
from tasks.held_out import held_out_losses
from tasks.promotion import Metrics, choose_promotion
from tasks.registry import CHAMPION, find_alias, list_models, set_alias
from tasks.tracking import open_run

DECISION_TAG = "gwm.promotion"
HELD_OUT_PERCENT = 10  # of the videos, where no benchmark decides


@flow(name="retrain-on-new-footage")
def retrain_on_new_footage(
    sources: list[str],
    dataset: str,
    model: str = "gwm",
    experiment: str = "gwm_unet",
    overrides: list[str] | None = None,
    benchmark: str | None = None,
    root: str | None = None,
    force: bool = False,
    allow_empty: bool = False,
    weights: str | None = None,
) -> dict[str, Any]:
    """Train ``model`` on when the dataset holds what it was not trained on; force trains in any case.

    Compares champion and challenger by the label-free score on the benchmark, or without one by the loss on footage
    that neither was trained on. New footage is ingested by the dataset's own recipe; weights: where those of its
    optical flow lie, when they are not torchvision's. Returns what was done and why.
    """
    settings = [*(overrides or []), f"data.held_out_percent={0 if benchmark else HELD_OUT_PERCENT}"]
    check_request(experiment, settings, benchmark, root)
    ingested = ingest_footage(sources, dataset, weights=weights, allow_empty=allow_empty, keep_recipe=True)
    version, champion = ingested["version"], find_champion(model)
    if version is None or (not force and was_decided(model, dataset, version)):
        return tell({"outcome": "nothing new", "dataset_version": version, "champion": champion})
    training_id = f"{model}-{flow_run.id}" if force else None
    trained = run_training(experiment, settings, dataset, version, champion, model, training_id)
    scores = compare(champion, trained["registered"], benchmark, root, dataset, version)
    decision = promote(model, champion, trained, scores)
    return tell({"dataset_version": version, "champion": champion, "challenger": trained["registered"], **decision})


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def check_request(experiment: str, overrides: list[str], benchmark: str | None, root: str | None) -> None:
    """Find what would stop the decision after hours of training: a misspelt key, a benchmark that is not there.

    Raises ConfigError or DatasetError saying which.
    """
    load_experiment(experiment, EXPERIMENTS, overrides)
    if (benchmark is None) != (root is None):
        raise ConfigError(f"benchmark={benchmark!r}, root={root!r}: give both to decide on a benchmark, or neither")
    if benchmark is not None and root is not None:
        open_benchmark(benchmark, root)


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def find_champion(model: str) -> str | None:
    """Return ``models:/NAME/VERSION`` of the model in use, which an alias would not pin; None for the first one."""
    found = find_alias(load_settings(), name=model, alias=CHAMPION)
    return found.reference if found else None


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def was_decided(model: str, dataset: str, version: int) -> bool:
    """Tell whether a model of this name was trained on this version of the dataset and then promoted or refused."""
    settings = load_settings()
    runs = [registered.run_id for registered in list_models(settings, name=model) if registered.run_id]
    tags = (open_run(settings, run).tags() for run in runs)
    return is_decided(tags, open_dataset(dataset, version).uri, version)


def is_decided(tags_of_runs: Iterable[Mapping[str, str]], dataset: str, version: int) -> bool:
    """Decide ``was_decided`` from the tags of the trainings."""
    return any(
        DECISION_TAG in tags
        and tags.get("gwm.dataset_uri") == dataset
        and tags.get("gwm.dataset_version") == str(version)
        for tags in tags_of_runs
    )


def compare(
    champion: str | None, challenger: str, benchmark: str | None, root: str | None, dataset: str, version: int
) -> list[dict[str, Any]]:
    """Measure the challenger and, if there is one, the champion, by the same yardstick."""
    references = [challenger, *([champion] if champion else [])]
    folders = [find_model(reference) for reference in references]
    if benchmark is None or root is None:
        return measure_held_out(references, folders, dataset, version)
    scored = [
        score_sequences(folder, name, benchmark, root, None, None, None)
        for folder, name in zip(folders, references, strict=True)
    ]
    return [
        {"model": name, "headline": result["headline"], "benchmark": benchmark}
        for name, result in zip(references, scored, strict=True)
    ]


@task(retries=1, retry_delay_seconds=10, **NOT_FOR_BAD_INPUT)
def measure_held_out(references: list[str], folders: list[str], dataset: str, version: int) -> list[dict[str, Any]]:
    """Measure the loss on the footage that was kept aside."""
    device = own_device(load_settings())
    losses = held_out_losses(folders, dataset, version, percent=HELD_OUT_PERCENT, device=device)
    if losses is None:
        return [{"model": name} for name in references]
    return [{"model": name, "held_out_loss": loss} for name, loss in zip(references, losses, strict=True)]


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def promote(model: str, champion: str | None, trained: dict[str, Any], scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Move the alias when the challenger is better, and record the decision with its run, last."""
    settings = load_settings()
    challenger, *rest = [Metrics(**{key: row[key] for key in row if key != "model"}) for row in scores]
    decision = choose_promotion(rest[0] if champion else None, challenger)
    if decision.promote:
        version = int(trained["registered"].rpartition("/")[2])
        set_alias(settings, name=model, alias=CHAMPION, version=version)
    outcome = "promoted" if decision.promote else "champion kept"
    open_run(settings, trained["mlflow_run"]).set_tags({DECISION_TAG: f"{outcome}: {decision.reason}"})
    publish_table(scores, key="comparison", description=decision.reason)
    return {"outcome": outcome, "reason": decision.reason}


@task
def tell(result: dict[str, Any]) -> dict[str, Any]:
    """Leave the outcome as a table with the flow run."""
    rows = [{"what": key, "value": str(value)} for key, value in result.items()]
    publish_table(rows, key="retraining", description=f"Retraining: {result['outcome']}")
    return result
