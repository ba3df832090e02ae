"""The record of an evaluation on still images, in which no number travels without how it came about.

Foreground choice, checkpoint choice and the size at which the network looked are part of every score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.dense_crf import crf_preset
from model.image_metrics import HARD_THRESHOLD, IMAGE_MEASURES, NUM_LEVELS, ImageMeasure
from tasks.foreground_choices import IMAGE_FOREGROUND_CHOICES, LABEL_FREE
from tasks.scores import EvaluatedModel

HEADLINE_MEASURE: ImageMeasure = "J"


@dataclass(frozen=True, kw_only=True)
class ChoiceScores:
    """One image under one foreground choice: the segments taken, and 0..1 the scores that an image has by itself."""

    segments: tuple[int, ...]
    accuracy: float
    j: float
    f_beta: float
    mean_absolute_error: float

    def value(self, measure: ImageMeasure) -> float:
        """Return a score; NaN for max F_beta, which only a set of images has."""
        by_measure = {"accuracy": self.accuracy, "J": self.j, "F_beta": self.f_beta, "MAE": self.mean_absolute_error}
        return by_measure.get(measure, math.nan)


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One image of a benchmark: its size (rows, columns), and its scores by foreground choice."""

    name: str
    size: tuple[int, int]
    rule: str
    choices: Mapping[str, ChoiceScores]

    @property
    def badness(self) -> tuple[float, str]:
        """Sort key by which the worst image comes first: label-free J, then the name."""
        return self.choices[LABEL_FREE].j, self.name


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One averaged number with all that it needs to be read.

    threshold: at which the masks were cut, k / 255 for max F_beta; None for the mean absolute error, which cuts none.
    coverage: how much of the published benchmark it is an average of.
    crf: settings of the dense CRF that refined the masks (tasks/refine.py); None where they are as the network's.
    """

    benchmark: str
    measure: ImageMeasure
    value: float
    foreground: str
    uses_annotations: bool
    checkpoint: str
    network_size: str
    threshold: float | None
    coverage: str
    crf: str | None = None

    @property
    def key(self) -> str:
        """Name of the number in MLflow, such as ``ecssd/J/label-free``, or ``.../label-free/crf-gwm``."""
        refined = f"/crf-{self.crf}" if self.crf else ""
        return f"{self.benchmark}/{self.measure}/{self.foreground}{refined}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageReport:
    """Everything that one evaluation on still images found, in numbers.

    f_curves: mean F_beta over images at each threshold k / 255, by foreground choice.
    features: what segments were merged by (model/features.py). network_size: in words, see ``tasks/evaluate_image.py``.
    crf: settings of the dense CRF that refined all masks before they were scored; None where none did.
    """

    benchmark: str
    model: EvaluatedModel
    images: tuple[ImageRow, ...]
    f_curves: Mapping[str, NDArray[np.float64]]
    created: str
    seconds: float
    features: str
    network_size: str
    coverage: str
    crf: str | None = None

    def title(self, choice: str) -> str:
        """Return how a foreground choice is called beside its numbers: with the CRF, where one refined the masks."""
        return IMAGE_FOREGROUND_CHOICES[choice].title + (f", CRF {self.crf}" if self.crf else "")

    @property
    def checkpoint(self) -> str:
        """How the model's checkpoint was chosen."""
        return self.model.checkpoint

    @property
    def choices(self) -> tuple[str, ...]:
        """Foreground choices that every image was scored under, in the order to show them."""
        return tuple(name for name in IMAGE_FOREGROUND_CHOICES if all(name in image.choices for image in self.images))

    def score(self, measure: ImageMeasure, choice: str) -> ImageScore:
        """Average one measure over the images."""
        curve = self.f_curves[choice]
        threshold: float | None = None if measure == "MAE" else HARD_THRESHOLD
        if measure == "max_F_beta":
            value, threshold = float(curve.max()), (int(curve.argmax()) + 1) / NUM_LEVELS
        else:
            value = float(np.mean([image.choices[choice].value(measure) for image in self.images]))
        return ImageScore(
            benchmark=self.benchmark,
            measure=measure,
            value=value,
            foreground=choice,
            uses_annotations=IMAGE_FOREGROUND_CHOICES[choice].uses_annotations,
            checkpoint=self.checkpoint,
            network_size=self.network_size,
            threshold=threshold,
            coverage=self.coverage,
            crf=self.crf,
        )

    @property
    def headline(self) -> ImageScore:
        """The number to quote: mean J over images, foreground chosen without labels."""
        return self.score(HEADLINE_MEASURE, LABEL_FREE)

    def scores(self) -> Iterator[ImageScore]:
        """Yield every average: five measures, each foreground choice."""
        for choice in self.choices:
            for measure in IMAGE_MEASURES:
                yield self.score(measure, choice)

    def metrics(self) -> dict[str, float]:
        """Return the averages by key, as MLflow takes them."""
        return {score.key: score.value for score in self.scores()}

    def worst_first(self) -> list[ImageRow]:
        """Return the images by rising label-free J."""
        return sorted(self.images, key=lambda image: image.badness)

    def to_json(self) -> str:
        """Return the report as JSON; every score in it is labelled in full."""
        document: dict[str, Any] = {
            "format": 1,
            "benchmark": self.benchmark,
            "coverage": self.coverage,
            "created": self.created,
            "seconds": round(self.seconds, 2),
            "model": asdict(self.model),
            "merged_by_features": self.features,
            "network_size": self.network_size,
            "crf": None if self.crf is None else {"name": self.crf, **asdict(crf_preset(self.crf))},
            "checkpoint": self.checkpoint,
            "foreground_choices": [asdict(IMAGE_FOREGROUND_CHOICES[name]) for name in self.choices],
            "headline": asdict(self.headline),
            "scores": [asdict(score) for score in self.scores()],
            "mean_f_beta_above_k_255ths": {name: self.f_curves[name].round(6).tolist() for name in self.choices},
            "images": [self._image_json(image) for image in self.images],
        }
        return json.dumps(document, indent=1, allow_nan=False)

    def _image_json(self, image: ImageRow) -> dict[str, Any]:
        return {
            "name": image.name,
            "size": list(image.size),
            "label_free_rule": image.rule,
            "scores": [
                {
                    "foreground": choice,
                    "uses_annotations": IMAGE_FOREGROUND_CHOICES[choice].uses_annotations,
                    "checkpoint": self.checkpoint,
                    **asdict(image.choices[choice]),
                }
                for choice in self.choices
            ],
        }
