"""What running an ablation table comes to: for each row a training, a place for its scores, or the reason against it.

Every row is known by what decides its numbers. A training has the id that ``gwm train`` would give it, so rows of two
tables that ask for the same training share it; scores lie in a file named after training and evaluation, so a row that
was scored once is read and not run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.ablation import AblationRow, AblationTable, choose_rows, find_table, require_free_keys
from tasks.benchmarks import open_benchmark
from tasks.catalog import open_dataset
from tasks.config import ExperimentConfig
from tasks.errors import ConfigError
from tasks.features import MergingFeatures
from tasks.identity import recipe_difference
from tasks.snapshot import DatasetSnapshot
from tasks.storage import Location, location
from tasks.train import default_training_id

_FLOW_FIELDS = {"flow_estimator", "flow_weights_sha256"}


@dataclass(frozen=True, kw_only=True)
class AblationRequest:
    """What a user asks for; plain values.

    dataset: what rows are trained on; None where no row trains. datasets: by name of the optical flow estimator, for
    rows that name one. overrides: of the preset, for all rows. rows: names, all for None. merging: what segments are
    merged by for the paper's procedure, and where the baselines' keys come from.
    """

    table: str
    experiment: str
    benchmark: str
    root: str
    dataset: str | None = None
    datasets: Mapping[str, str] = field(default_factory=dict)
    sequences: tuple[str, ...] | None = None
    overrides: tuple[str, ...] = ()
    rows: tuple[str, ...] | None = None
    merging: MergingFeatures = field(default_factory=MergingFeatures)


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """One row as work.

    overrides: of the preset, the request's before the row's. dataset, version: what it is trained on; None for a
    baseline. scores: address of the JSON that its evaluation leaves. refusal: why it can not be run.
    """

    row: AblationRow
    overrides: tuple[str, ...]
    scores: str
    dataset: str | None = None
    version: int | None = None
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True)
class AblationPlan:
    """A table as work, in the order in which it is done.

    folder: where the table goes; below it the scores of rows. sequences: names of those that are scored.
    """

    request: AblationRequest
    folder: Location
    table: AblationTable
    sequences: tuple[str, ...]
    rows: tuple[PlannedRow, ...]


Resolve = Callable[[Sequence[str]], ExperimentConfig]
"""Makes an experiment of the request's preset and overrides."""


def plan_ablation(request: AblationRequest, resolve: Resolve, folder: Location) -> AblationPlan:
    """Plan the rows of a table.

    Raises ConfigError for an unknown table, row or key, an override of what the table varies, or a dataset that is
    missing from the request; DatasetError when dataset or benchmark are not there. A row whose own dataset is missing
    or can not be compared is planned with the refusal.
    """
    table = find_table(request.table)
    rows = choose_rows(table, request.rows)
    require_free_keys(table, request.overrides)
    benchmark = open_benchmark(request.benchmark, request.root, request.sequences)
    sequences = tuple(sequence.name for sequence in benchmark.sequences)
    snapshot = _reference_dataset(request, rows)
    planned = tuple(_plan_row(row, request, resolve, snapshot, folder / "scores", sequences) for row in rows)
    return AblationPlan(request=request, folder=folder, table=table, sequences=sequences, rows=planned)


def refuse_dataset(row: AblationRow, given: DatasetSnapshot, reference: DatasetSnapshot) -> str | None:
    """Return why a row that names an estimator can not be trained on ``given``; None when it can.

    Rows are compared with each other: their datasets must hold the same videos by the same recipe but for the flow.
    """
    estimators = {video.recipe.flow_estimator for video in given.videos}
    if estimators != {row.estimator}:
        return (
            f"{given.uri} holds optical flow by {', '.join(sorted(estimators)) or 'none'}, expected {row.estimator}: "
            f"gwm ingest SOURCES --estimator {row.estimator} --dataset URI, then --dataset-for {row.estimator}=URI"
        )
    recipes = {video.video_id: video.recipe for video in reference.videos}
    if {video.video_id for video in given.videos} != set(recipes):
        return f"{given.uri} and {reference.uri} hold different videos: ingest the same sources into both"
    changed = {name for video in given.videos for name in recipe_difference(video.recipe, recipes[video.video_id])}
    if changed - _FLOW_FIELDS:
        return (
            f"{given.uri} and {reference.uri} differ in {', '.join(sorted(changed - _FLOW_FIELDS))}, expected a "
            "difference in the optical flow only: ingest both by the same options"
        )
    return None


def refuse_seen(given: DatasetSnapshot, sequences: Sequence[str]) -> str | None:
    """Return why rows about unseen sequences can not be trained on ``given``; None when it holds none of them."""
    seen = sorted({video.clip for video in given.videos} & set(sequences))
    if not seen:
        return None
    return (
        f"{given.uri} holds {len(seen)} of the {len(sequences)} sequences that are scored, such as {seen[0]}: ingest "
        "the training split only, or score others with --sequences"
    )


def _reference_dataset(request: AblationRequest, rows: Sequence[AblationRow]) -> DatasetSnapshot | None:
    if all(row.baseline for row in rows):
        return None
    if request.dataset is None:
        raise ConfigError(f"table {request.table} trains its rows: give the dataset with --dataset")
    return open_dataset(request.dataset)


def _plan_row(
    row: AblationRow,
    request: AblationRequest,
    resolve: Resolve,
    reference: DatasetSnapshot | None,
    scores_folder: Location,
    sequences: Sequence[str],
) -> PlannedRow:
    overrides = (*request.overrides, *row.overrides)
    if row.baseline is not None or reference is None:
        return PlannedRow(
            row=row, overrides=overrides, scores=_scores_file(scores_folder, row.name, row, request, sequences)
        )
    experiment = resolve(overrides)
    given, refusal = reference, None
    if row.estimator is not None:
        given = open_dataset(request.datasets[row.estimator]) if row.estimator in request.datasets else reference
        refusal = refuse_dataset(row, given, reference)
    if row.unseen and refusal is None:
        refusal = refuse_seen(given, sequences)
    training_id = default_training_id(experiment, given.uri, given.version)
    return PlannedRow(
        row=row,
        overrides=overrides,
        scores=_scores_file(scores_folder, training_id, row, request, sequences),
        dataset=given.uri,
        version=given.version,
        refusal=refusal,
    )


def _scores_file(
    folder: Location, model: str, row: AblationRow, request: AblationRequest, sequences: Sequence[str]
) -> str:
    """Name a file after all that decides the scores of a model; ``model`` names the training, or the baseline."""
    merging = [request.merging.name, request.merging.weights, request.merging.sha256]
    decides = json.dumps([request.benchmark, location(request.root).uri, list(sequences), merging, row.adapt_steps])
    return (folder / f"{model}-{hashlib.sha256(decides.encode()).hexdigest()[:8]}.json").uri
