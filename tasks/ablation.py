"""The GWM paper's ablation tables as data: which rows there are, what each changes, and what the paper prints for it.

A row is a handful of overrides of a preset, so that any preset can be ablated; a row without overrides of its own, such
as the baselines that are not trained, says what else it needs. ``tasks/ablation_plan.py`` makes work of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.clustering import ClusteringBaseline
from tasks.errors import ConfigError

GWM_PROCEDURE = (
    "paper: MaskFormer on frozen DINO, optical flow by RAFT; foreground by ground truth per frame, checkpoint by the "
    "best J on the labelled validation set"
)
"""How the numbers in the paper's columns came about, wherever a table says nothing else (released code)."""


@dataclass(frozen=True, kw_only=True)
class PaperScore:
    """What a paper prints, 0..1; ``oracle``: the best assignment of segments, where the table has such a column."""

    j: float
    oracle: float | None = None
    source: str


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """One row of a table.

    overrides: of the preset, as ``--set`` takes them.
    paper: by benchmark; empty where nothing is published.
    estimator: optical flow that the dataset must have been made with; None takes the dataset as it is.
    unseen: whether what is scored must not be in the dataset. adapt_steps: of adaptation to each sequence.
    baseline: a clustering of features that stands in for a trained model; such a row trains nothing.
    """

    name: str
    title: str
    overrides: tuple[str, ...] = ()
    paper: Mapping[str, PaperScore] = field(default_factory=dict)
    estimator: str | None = None
    unseen: bool = False
    adapt_steps: int = 0
    baseline: ClusteringBaseline | None = None


@dataclass(frozen=True, kw_only=True)
class AblationTable:
    """A table: rows in the order in which they are run and shown, and how the paper came by its numbers."""

    name: str
    title: str
    rows: tuple[AblationRow, ...]
    paper_procedure: str = GWM_PROCEDURE

    @property
    def varied(self) -> tuple[str, ...]:
        """Configuration keys that the rows decide, in order."""
        return tuple(dict.fromkeys(override.partition("=")[0] for row in self.rows for override in row.overrides))


def find_table(name: str) -> AblationTable:
    """Return table ``name``; raises ConfigError with the names there are."""
    if name not in TABLES:
        raise ConfigError(f"no ablation table {name!r}: expected one of {', '.join(TABLES)}")
    return TABLES[name]


def choose_rows(table: AblationTable, names: Sequence[str] | None) -> tuple[AblationRow, ...]:
    """Return the rows called ``names`` in the table's order, all for None; raises ConfigError for an unknown one."""
    known = {row.name: row for row in table.rows}
    if names is None:
        return table.rows
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(
            f"rows {', '.join(unknown) or '(none)'} are not in table {table.name}: expected some of {', '.join(known)}"
        )
    return tuple(row for row in table.rows if row.name in names)


def require_free_keys(table: AblationTable, overrides: Iterable[str]) -> None:
    """Raise ConfigError when an override fixes what the table varies, since its rows would not be what they say."""
    taken = [override for override in overrides if override.partition("=")[0] in table.varied]
    if taken:
        raise ConfigError(
            f"--set {taken[0]!r}: table {table.name} varies {', '.join(table.varied)} itself; leave it out, or choose "
            "rows with --rows"
        )


_TABLE_2 = "GWM (Choudhury et al., BMVC 2022), Table 2"
_FLOW_TABLES = "GWM (Choudhury et al., BMVC 2022), Tables 7 and 8"
_TABLE_4 = "GWM (Choudhury et al., BMVC 2022), Table 4, RAFT"
_TABLE_6 = "GWM (Choudhury et al., BMVC 2022), Table 6"


def _davis(j: float, oracle: float | None = None, *, source: str = _TABLE_2) -> dict[str, PaperScore]:
    return {"davis16": PaperScore(j=j / 100, oracle=None if oracle is None else oracle / 100, source=source)}


_MOTION_MODELS = {"constant": _davis(76.8, 77.7), "affine": _davis(77.1, 78.8), "quadratic": _davis(79.5, 81.5)}
_SEGMENTS = {2: _davis(74.5, 74.5), 3: _davis(77.8, 79.5), 4: _davis(79.5, 81.5), 5: _davis(76.0, 79.9)}
_OBJECTIVES = {
    "mixture": "mixture (the paper's Eq. 3)",
    "blended": "blended (released code)",
    "blended_then_mixture": "blended, then mixture (ours)",
}
_FLOW_SOURCES = {
    "dis": {},
    "arflow": _davis(66.9, source=_FLOW_TABLES),
    "pwc": _davis(74.9, source=_FLOW_TABLES),
    "raft-small": {},
    "raft-large": _davis(79.5, source=_FLOW_TABLES),
    "raft-large-20": _davis(79.5, source=_FLOW_TABLES),  # 20 updates, as the script that GWM's flow comes from
}


def _clusters(davis: float, segtrack: float, fbms: float) -> dict[str, PaperScore]:
    scores = {"davis16": davis, "segtrackv2": segtrack, "fbms59": fbms}
    return {benchmark: PaperScore(j=round(j / 100, 4), source=_TABLE_6) for benchmark, j in scores.items()}


def _unseen(davis: float, fbms: float) -> dict[str, PaperScore]:
    scores = {"davis16": davis, "fbms59": fbms}
    return {benchmark: PaperScore(j=j / 100, source=_TABLE_4) for benchmark, j in scores.items()}


def _crossed() -> tuple[AblationRow, ...]:
    return tuple(
        AblationRow(
            name=f"{motion_model}-{objective}".replace("_", "-"),
            title=f"{motion_model}, {_OBJECTIVES[objective]}",
            overrides=(f"method.motion_model={motion_model}", "method.num_segments=4", f"method.objective={objective}"),
            # The paper describes one objective and its code trains the other; its number stands beside both.
            paper=_MOTION_MODELS[motion_model] if objective != "blended_then_mixture" else {},
        )
        for motion_model in _MOTION_MODELS
        for objective in _OBJECTIVES
    )


TABLES: dict[str, AblationTable] = {
    table.name: table
    for table in (
        AblationTable(
            name="motion-models",
            title="Motion model within a segment, K=4",
            rows=tuple(
                AblationRow(
                    name=name,
                    title=f"{name}, K=4",
                    overrides=(f"method.motion_model={name}", "method.num_segments=4"),
                    paper=paper,
                )
                for name, paper in _MOTION_MODELS.items()
            ),
        ),
        AblationTable(
            name="segments",
            title="Number of segments K, quadratic motion",
            rows=tuple(
                AblationRow(
                    name=f"k{count}",
                    title=f"K={count}, quadratic",
                    overrides=("method.motion_model=quadratic", f"method.num_segments={count}"),
                    paper=paper,
                )
                for count, paper in _SEGMENTS.items()
            ),
        ),
        AblationTable(
            name="objectives",
            title="Objective",
            rows=tuple(
                AblationRow(name=name.replace("_", "-"), title=title, overrides=(f"method.objective={name}",))
                for name, title in _OBJECTIVES.items()
            ),
        ),
        AblationTable(name="motion-models-x-objectives", title="Motion model and objective, K=4", rows=_crossed()),
        AblationTable(
            name="gap-sampling",
            title="How frame gaps are drawn",
            rows=(
                AblationRow(name="uniform", title="uniform (paper)", overrides=("data.gap_sampling=uniform",)),
                AblationRow(name="released", title="50, 33, 17, 0 % (code)", overrides=("data.gap_sampling=released",)),
            ),
        ),
        AblationTable(
            name="flow-sources",
            title="Optical flow that is trained on",
            rows=tuple(
                AblationRow(name=name, title=name, estimator=name, paper=paper) for name, paper in _FLOW_SOURCES.items()
            ),
        ),
        AblationTable(
            name="generalisation",
            title="Sequences that were not trained on, as they come and after adaptation",
            paper_procedure=f"{GWM_PROCEDURE}; trained on the training split only",
            rows=(
                AblationRow(name="zero-shot", title="zero-shot", unseen=True, paper=_unseen(66.8, 73.2)),
                AblationRow(
                    name="adapted",
                    title="20 steps on each",
                    unseen=True,
                    adapt_steps=20,
                    paper=_unseen(76.3, 77.1),
                ),
            ),
        ),
        AblationTable(
            name="dino-clustering",
            title="DINO keys clustered image by image, without motion and without training",
            paper_procedure="paper: foreground by ground truth per frame; nothing is trained",
            rows=(
                AblationRow(
                    name="spectral-2",
                    title="spectral, K=2",
                    baseline=ClusteringBaseline(algorithm="spectral", num_segments=2),
                    paper=_clusters(15.79, 14.89, 27.45),
                ),
                AblationRow(
                    name="k-means-4",
                    title="k-means, K=4, merged",
                    baseline=ClusteringBaseline(algorithm="k-means", num_segments=4),
                    paper=_clusters(41.79, 34.84, 48.80),
                ),
                AblationRow(
                    name="k-means-2",
                    title="k-means, K=2",
                    baseline=ClusteringBaseline(algorithm="k-means", num_segments=2),
                    paper=_clusters(20.24, 21.14, 38.25),
                ),
            ),
        ),
    )
}
"""By name, as ``gwm ablate`` takes it."""
