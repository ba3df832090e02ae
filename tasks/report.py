"""The page of an evaluation: the label-free headline first, everything that saw an annotation marked as such."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from model.metrics import PROTOCOLS, counted_scores
from tasks.evaluate_sequence import PictureRow
from tasks.pages import curve, render
from tasks.published import PublishedColumn, published_columns
from tasks.scores import (
    FOREGROUND_CHOICES,
    GROUND_TRUTH_PER_FRAME,
    LABEL_FREE,
    MEASURES,
    ORACLE_PER_CLIP,
    ORACLE_PER_FRAME,
    EvaluationReport,
    ForegroundChoice,
    Score,
    SequenceScores,
)


@dataclass(frozen=True, kw_only=True)
class _ChoiceCard:
    """One foreground choice at the top of the page; ``gap``: J above the label-free headline."""

    choice: ForegroundChoice
    j: Score
    f: Score
    gap: float


@dataclass(frozen=True, kw_only=True)
class _SequenceView:
    """One sequence as the page shows it. ``means``: J by choice under the headline's protocol, NaN where absent."""

    scores: SequenceScores
    means: dict[str, float]
    f_mean: float
    recall: float
    decay: float
    curve: Markup
    columns: tuple[str, ...]
    rows: tuple[PictureRow, ...]


_SHOWN_MEANS = (LABEL_FREE, GROUND_TRUTH_PER_FRAME, ORACLE_PER_CLIP, ORACLE_PER_FRAME)


def render_report(report: EvaluationReport, pictures: Mapping[str, Sequence[PictureRow]]) -> str:
    """Return the page of an evaluation, worst sequences and worst frames first.

    pictures: by sequence; a sequence without any is shown by its numbers alone.
    """
    columns = published_columns(report.benchmark)
    views = [
        _view(sequence, report.headline_protocol, pictures.get(sequence.name, ())) for sequence in report.sequences
    ]
    views.sort(key=lambda view: view.means[LABEL_FREE])
    return render(
        "report.html",
        title=f"{report.benchmark}: {report.model.experiment}",
        report=report,
        headline=report.headline,
        headline_f=report.score("F", report.headline_protocol, LABEL_FREE),
        cards=[_card(report, name) for name in report.choices if name != LABEL_FREE],
        choices=[FOREGROUND_CHOICES[name] for name in report.choices],
        protocols=PROTOCOLS,
        headline_protocol=report.headline_protocol,
        measures=MEASURES,
        averages={(score.measure, score.protocol, score.foreground): score.value for score in report.scores()},
        published=columns,
        shared=_published_on_the_same_sequences(report, columns),
        sequences=views,
    )


def _card(report: EvaluationReport, choice: str) -> _ChoiceCard:
    j = report.score("J", report.headline_protocol, choice)
    return _ChoiceCard(
        choice=FOREGROUND_CHOICES[choice],
        j=j,
        f=report.score("F", report.headline_protocol, choice),
        gap=j.value - report.headline.value,
    )


def _published_on_the_same_sequences(
    report: EvaluationReport, columns: Sequence[PublishedColumn]
) -> list[float | None]:
    """Average each column over the sequences scored here: an overall of 20 says nothing beside ours of 10.

    Averaged as our headline is: where that is over frames, each sequence counts by its frames.
    """
    by_sequence = PROTOCOLS[report.headline_protocol].by_sequence
    weights = {
        sequence.name: 1 if by_sequence else len(_counted_frames(sequence, report.headline_protocol))
        for sequence in report.sequences
    }
    means: list[float | None] = []
    for column in columns:
        known = [weight * column.per_sequence.get(name, math.nan) for name, weight in weights.items()]
        mean = sum(known) / sum(weights.values())
        means.append(None if math.isnan(mean) else mean)
    return means


def _counted_frames(sequence: SequenceScores, protocol: str) -> list[float]:
    return counted_scores(sequence.choices[LABEL_FREE].values("J", protocol), protocol, sequence.scored)


def _view(sequence: SequenceScores, protocol: str, rows: Sequence[PictureRow]) -> _SequenceView:
    values = sequence.choices[LABEL_FREE]
    statistics = values.statistics("J")
    marks = [sequence.frames.index(row.frame) for row in rows]
    return _SequenceView(
        scores=sequence,
        means={
            name: sequence.mean("J", protocol, name) if name in sequence.choices else math.nan for name in _SHOWN_MEANS
        },
        f_mean=sequence.mean("F", protocol, LABEL_FREE),
        recall=statistics.recall,
        decay=statistics.decay,
        curve=curve(values.j, label=f"J of each frame of {sequence.name}", marks=marks),
        columns=_columns(rows),
        rows=tuple(rows),
    )


def _columns(rows: Sequence[PictureRow]) -> tuple[str, ...]:
    """Titles in the order of the fullest row: a clip's last frame has no optical flow."""
    fullest = max(rows, key=lambda row: len(row.tiles), default=None)
    return tuple(fullest.tiles) if fullest else ()
