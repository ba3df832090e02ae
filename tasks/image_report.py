"""The page of an evaluation on still images: the label-free headline first, then the worst images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model.image_metrics import IMAGE_MEASURES
from tasks.foreground_choices import IMAGE_FOREGROUND_CHOICES, LABEL_FREE, ForegroundChoice
from tasks.image_scores import HEADLINE_MEASURE, ImageReport, ImageRow, ImageScore
from tasks.pages import curve, render
from tasks.published import published_image_rows

_SIZES = {
    "native": "each image's own size",
    "model": "the size that it was trained at",
}
_FIELDS = {
    "accuracy": "accuracy",
    "J": "j",
    "F_beta": "f_beta",
    "max_F_beta": "max_f_beta",
    "MAE": "mean_absolute_error",
}


@dataclass(frozen=True, kw_only=True)
class _ChoiceCard:
    """One foreground choice at the top of the page; ``gap``: J above the label-free headline."""

    choice: ForegroundChoice
    j: ImageScore
    gap: float


@dataclass(frozen=True, kw_only=True)
class _ImageView:
    """One image as the page shows it."""

    row: ImageRow
    tiles: Mapping[str, bytes]


def render_image_report(report: ImageReport, pictures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Return the page of an evaluation on images, those with pictures worst first."""
    ordered, rows = report.worst_first(), published_image_rows(report.benchmark)
    shown = [_ImageView(row=row, tiles=pictures[row.name]) for row in ordered if row.name in pictures]
    return render(
        "images.html",
        title=f"{report.benchmark}: {report.model.experiment}",
        report=report,
        headline=report.headline,
        network_size=_SIZES.get(report.network_size, report.network_size),
        cards=[_card(report, name) for name in report.choices if name != LABEL_FREE],
        choices=[IMAGE_FOREGROUND_CHOICES[name] for name in report.choices],
        measures=IMAGE_MEASURES,
        averages={(score.measure, score.foreground): score for score in report.scores()},
        published=[(row, [getattr(row, _FIELDS[name]) for name in IMAGE_MEASURES]) for row in rows],
        images=shown,
        curve=curve([row.choices[LABEL_FREE].j for row in ordered], label="J of all images, worst first"),
        label_free=LABEL_FREE,
    )


def _card(report: ImageReport, choice: str) -> _ChoiceCard:
    j = report.score(HEADLINE_MEASURE, choice)
    return _ChoiceCard(choice=IMAGE_FOREGROUND_CHOICES[choice], j=j, gap=j.value - report.headline.value)
