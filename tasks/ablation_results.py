"""What came of an ablation table: ours beside the paper's, as rows, JSON, Markdown and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from model.metrics import PROTOCOLS
from tasks.ablation import AblationRow, PaperScore
from tasks.ablation_plan import AblationPlan, PlannedRow
from tasks.foreground_choices import (
    FOREGROUND_CHOICES,
    GROUND_TRUTH_PER_FRAME,
    LABEL_FREE,
    ORACLE_PER_CLIP,
    ORACLE_PER_FRAME,
)
from tasks.pages import render
from tasks.scores import HEADLINE_PROTOCOL
from tasks.storage import location

SHOWN_CHOICES = (LABEL_FREE, GROUND_TRUTH_PER_FRAME, ORACLE_PER_CLIP, ORACLE_PER_FRAME)
"""Foreground choices in the order of the columns; the second is the procedure of the paper's numbers."""


@dataclass(frozen=True, kw_only=True)
class RowOutcome:
    """What became of a row.

    scores: J, 0..1, by foreground choice under ``protocol``, the headline's; empty for a row that failed.
    sequences: J of every label-free rule, and of the best grouping of each frame, by sequence.
    status: done now, reused from an earlier run, or failed for ``reason``. model: reference of what was scored.
    checkpoint: how the model's checkpoint was chosen; None for a row that failed.
    """

    row: AblationRow
    status: Literal["done", "reused", "failed"]
    scores: Mapping[str, float] = field(default_factory=dict)
    sequences: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    protocol: str = HEADLINE_PROTOCOL
    reason: str = ""
    model: str | None = None
    checkpoint: str | None = None


def read_outcome(planned: PlannedRow, status: Literal["done", "reused"]) -> RowOutcome | None:
    """Return a row's outcome from the JSON that its evaluation left; None when there is none."""
    place = location(planned.scores)
    if not place.exists():
        return None
    report = json.loads(place.read_bytes())
    protocol = report["headline"]["protocol"]
    return RowOutcome(
        row=planned.row,
        status=status,
        scores={
            score["foreground"]: score["value"]
            for score in report["scores"]
            if score["measure"] == "J" and score["protocol"] == protocol
        },
        sequences={sequence["name"]: _rules_of(sequence, protocol) for sequence in report.get("sequences", ())},
        protocol=protocol,
        model=report["model"]["reference"],
        checkpoint=report["checkpoint"],
    )


def table_rows(plan: AblationPlan, outcomes: Sequence[RowOutcome]) -> list[dict[str, Any]]:
    """Return the table as people read it; J in 0..1, None where there is no number."""
    return [_shown(outcome, plan.request.benchmark) for outcome in outcomes]


def notes(plan: AblationPlan, outcomes: Sequence[RowOutcome]) -> tuple[str, ...]:
    """Return what has to be known to read the table, a sentence each."""
    num_sequences = len(plan.sequences)
    protocols = dict.fromkeys(outcome.protocol for outcome in outcomes)
    return (
        *(f"J by protocol {name}: {PROTOCOLS[name].description}" for name in protocols),
        f"ours over {num_sequences} sequence{'s' if num_sequences != 1 else ''} of {plan.request.benchmark}, the "
        "paper's over all of it",
        "label-free is the headline and saw no annotation; every other column of ours saw annotations; segments merged "
        f"by {plan.request.merging.name} features",
        *(f"checkpoint of {', '.join(rows)}: {choice}" for choice, rows in _rows_by_checkpoint(outcomes).items()),
        plan.table.paper_procedure,
    )


def _rows_by_checkpoint(outcomes: Sequence[RowOutcome]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.checkpoint is not None:
            found.setdefault(outcome.checkpoint, []).append(outcome.row.name)
    return found


def to_json(plan: AblationPlan, outcomes: Sequence[RowOutcome]) -> str:
    """Return the table as JSON, with everything that it takes to run a row again."""
    request = plan.request
    document = {
        "format": 1,
        "table": plan.table.name,
        "title": plan.table.title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "benchmark": request.benchmark,
        "root": request.root,
        "sequences": list(plan.sequences),
        "experiment": request.experiment,
        "merged_by_features": request.merging.name,
        "foreground_choices": [asdict(FOREGROUND_CHOICES[name]) for name in SHOWN_CHOICES],
        "notes": list(notes(plan, outcomes)),
        "rows": [
            _record(planned, outcome, request.benchmark) for planned, outcome in zip(plan.rows, outcomes, strict=True)
        ],
    }
    return json.dumps(document, indent=1, allow_nan=False)


def to_markdown(plan: AblationPlan, outcomes: Sequence[RowOutcome]) -> str:
    """Return the table as Markdown, J in percent."""
    rows = table_rows(plan, outcomes)
    columns = list(rows[0])
    lines = [
        f"## {plan.table.title}",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'|'.join('---' for _ in columns)}|",
        *(f"| {' | '.join(_cell(row[column]) for column in columns)} |" for row in rows),
        "",
        *(f"- {note}." for note in notes(plan, outcomes)),
        *_rules_markdown(outcomes),
    ]
    return "\n".join(lines) + "\n"


def _rules_of(sequence: Mapping[str, Any], protocol: str) -> dict[str, float]:
    """J of each rule in one sequence of an evaluation's JSON; files of older versions have no rules."""
    best = next(
        score["mean_by_protocol"][protocol]
        for score in sequence["scores"]
        if score["measure"] == "J" and score["foreground"] == ORACLE_PER_FRAME
    )
    return {**sequence.get("label_free_rules", {}), FOREGROUND_CHOICES[ORACLE_PER_FRAME].title: best}


def _rules_markdown(outcomes: Sequence[RowOutcome]) -> list[str]:
    """Every label-free rule in every sequence of every row: how close each comes to the best grouping there is."""
    columns = list(dict.fromkeys(name for row in outcomes for rules in row.sequences.values() for name in rules))
    if not columns:
        return []
    columns.sort(key=lambda name: name == FOREGROUND_CHOICES[ORACLE_PER_FRAME].title)  # last, as what can be reached
    lines = [
        "",
        "### Rules for the foreground, J before any refinement",
        "",
        f"| row | sequence | {' | '.join(columns)} |",
        f"|---|---|{'|'.join('---' for _ in columns)}|",
    ]
    for outcome in outcomes:
        for name, rules in outcome.sequences.items():
            cells = " | ".join(_cell(rules.get(column)) for column in columns)
            lines.append(f"| {_cell(outcome.row.title)} | {name} | {cells} |")
    return lines


def to_html(plan: AblationPlan, outcomes: Sequence[RowOutcome]) -> str:
    """Return the table as one self-contained page with a bar for each number."""
    papers = {outcome.row.name: _paper(outcome.row, plan.request.benchmark) for outcome in outcomes}
    return render(
        "ablation.html",
        title=plan.table.title,
        plan=plan,
        outcomes=outcomes,
        choices=[FOREGROUND_CHOICES[name] for name in SHOWN_CHOICES],
        papers=papers,
        sources=sorted({paper.source for paper in papers.values() if paper}),
        notes=notes(plan, outcomes),
    )


def _shown(outcome: RowOutcome, benchmark: str) -> dict[str, Any]:
    paper = _paper(outcome.row, benchmark)
    return {
        "row": outcome.row.title,
        **{f"J {FOREGROUND_CHOICES[name].title}": outcome.scores.get(name) for name in SHOWN_CHOICES},
        "J paper": paper.j if paper else None,
        "oracle paper": paper.oracle if paper else None,
        "protocol": outcome.protocol,
        "outcome": f"failed: {outcome.reason}" if outcome.status == "failed" else outcome.status,
    }


def _record(planned: PlannedRow, outcome: RowOutcome, benchmark: str) -> dict[str, Any]:
    paper = _paper(outcome.row, benchmark)
    return {
        "name": outcome.row.name,
        "title": outcome.row.title,
        "overrides": list(planned.overrides),
        "dataset": planned.dataset,
        "dataset_version": planned.version,
        "model": outcome.model,
        "scores_file": planned.scores,
        "status": outcome.status,
        "reason": outcome.reason,
        "protocol": outcome.protocol,
        "checkpoint": outcome.checkpoint,
        "J": dict(outcome.scores),
        "J_by_sequence_and_rule": {name: dict(rules) for name, rules in outcome.sequences.items()},
        "paper": asdict(paper) if paper else None,
    }


def _paper(row: AblationRow, benchmark: str) -> PaperScore | None:
    return row.paper.get(benchmark)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")
