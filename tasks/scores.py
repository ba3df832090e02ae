"""The record of an evaluation, in which no number travels without how it came about.

Foreground choice, checkpoint choice and averaging protocol are part of every score: in memory, in JSON, in MLflow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from model.dense_crf import crf_preset
from model.metrics import PROTOCOLS, ScoredFrames, SequenceStatistics, average, counted_scores, statistics
from tasks.checkpoint_choice import LAST_STEP
from tasks.foreground_choices import (
    FOREGROUND_CHOICES,
    GROUND_TRUTH_PER_FRAME,
    LABEL_FREE,
    ORACLE_PER_CLIP,
    ORACLE_PER_FRAME,
    ForegroundChoice,
)
from tasks.json_values import with_nulls
from tasks.rule_scores import RuleScores, average_rules

Measure = Literal["J", "F"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

HEADLINE_PROTOCOL = "gwm"
"""How the headline is averaged where a benchmark does not say otherwise (``Benchmark.headline_protocol``)."""


@dataclass(frozen=True, kw_only=True)
class FrameScores:
    """J and F of every annotated frame of a sequence under one foreground choice.

    segments: the segments taken as foreground in each frame.
    both_empty: frames with neither an annotated object nor a predicted one. J is 1 there, as the DAVIS tool
        has it; the GWM protocol counts 0, the RCF protocol leaves the frame out.
    """

    j: tuple[float, ...]
    f: tuple[float, ...]
    segments: tuple[tuple[int, ...], ...]
    both_empty: tuple[bool, ...]

    def values(self, measure: Measure, protocol: str) -> list[float]:
        """Return the scores per frame as a protocol counts them."""
        if measure == "F":
            return list(self.f)
        empty_score = PROTOCOLS[protocol].empty_score
        return [empty_score if empty else j for j, empty in zip(self.j, self.both_empty, strict=True)]

    def statistics(self, measure: Measure) -> SequenceStatistics:
        """Return mean, recall and decay over all annotated frames, as the DAVIS tool defines them."""
        return statistics(self.values(measure, "davis"))


@dataclass(frozen=True, kw_only=True)
class SequenceScores:
    """One sequence of a benchmark.

    frames: numbers of the annotated frames, which all scores below refer to.
    foreground, rule: the label-free choice for the clip, and the rule that made it.
    choices: scores by the name of the foreground choice. rules: what every label-free rule would have scored.
    """

    name: str
    num_frames: int
    size: tuple[int, int]
    frames: tuple[int, ...]
    foreground: tuple[int, ...]
    rule: str
    choices: Mapping[str, FrameScores]
    rules: Mapping[str, RuleScores] = field(default_factory=dict)

    @property
    def scored(self) -> ScoredFrames:
        """Which of the sequence's frames have a score."""
        return ScoredFrames(numbers=self.frames, num_frames=self.num_frames)

    def mean(self, measure: Measure, protocol: str, choice: str) -> float:
        """Return the sequence's mean by a protocol's selection of frames; NaN where it leaves none."""
        return _average([self], measure, protocol, choice)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One averaged number with all that it needs to be read.

    value: NaN, null in JSON, where the protocol leaves no frame to average.
    coverage: how much of the published benchmark it is an average of.
    crf: settings of the dense CRF that refined the masks (tasks/refine.py); None where they are as the network's.
    """

    benchmark: str
    measure: Measure
    value: float
    foreground: str
    uses_annotations: bool
    checkpoint: str
    protocol: str
    num_sequences: int
    coverage: str
    crf: str | None = None

    @property
    def key(self) -> str:
        """Name of the number in MLflow, such as ``davis16/J/gwm/label-free``, or ``.../label-free/crf-gwm``."""
        refined = f"/crf-{self.crf}" if self.crf else ""
        return f"{self.benchmark}/{self.measure}/{self.protocol}/{self.foreground}{refined}"


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """Which model was scored: enough to find it again.

    checkpoint: how it was chosen among those of its training (tasks/checkpoint_choice.py).
    """

    reference: str
    weights_sha256: str
    experiment: str
    num_segments: int
    step: int | None = None
    training_id: str | None = None
    dataset_uri: str | None = None
    dataset_version: int | None = None
    joint_datasets: tuple[str, ...] = ()
    mlflow_run_id: str | None = None
    checkpoint: str = LAST_STEP


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everything that one evaluation found, in numbers.

    features: what segments were merged by for the ground-truth choice (model/features.py).
    headline_protocol, coverage, notes: as the benchmark says (tasks/benchmarks/types.py).
    crf: settings of the dense CRF that refined all masks before they were scored; None where none did.
    """

    benchmark: str
    model: EvaluatedModel
    sequences: tuple[SequenceScores, ...]
    optical_flow: str | None
    created: str
    seconds: float
    features: str = "decoder"
    headline_protocol: str = HEADLINE_PROTOCOL
    coverage: str = ""
    notes: tuple[str, ...] = ()
    crf: str | None = None

    @property
    def checkpoint(self) -> str:
        """How the model's checkpoint was chosen."""
        return self.model.checkpoint

    def title(self, choice: str) -> str:
        """Return how a foreground choice is called beside its numbers: with the CRF, where one refined the masks."""
        return FOREGROUND_CHOICES[choice].title + (f", CRF {self.crf}" if self.crf else "")

    @property
    def choices(self) -> tuple[str, ...]:
        """Foreground choices that every sequence was scored under, in the order to show them."""
        return tuple(
            name for name in FOREGROUND_CHOICES if all(name in sequence.choices for sequence in self.sequences)
        )

    def score(self, measure: Measure, protocol: str, choice: str) -> Score:
        """Average one measure over the benchmark."""
        return Score(
            benchmark=self.benchmark,
            measure=measure,
            value=_average(self.sequences, measure, protocol, choice),
            foreground=choice,
            uses_annotations=FOREGROUND_CHOICES[choice].uses_annotations,
            checkpoint=self.checkpoint,
            protocol=protocol,
            num_sequences=len(self.sequences),
            coverage=self.coverage,
            crf=self.crf,
        )

    @property
    def headline(self) -> Score:
        """The number to quote: J as the benchmark averages it, foreground chosen without labels."""
        return self.score("J", self.headline_protocol, LABEL_FREE)

    def scores(self) -> Iterator[Score]:
        """Yield every average: two measures, every protocol, each foreground choice."""
        for choice in self.choices:
            for protocol in PROTOCOLS:
                for measure in MEASURES:
                    yield self.score(measure, protocol, choice)

    def metrics(self) -> dict[str, float]:
        """Return the averages by key, and J of each sequence, as MLflow takes them: numbers only."""
        flat = {score.key: score.value for score in self.scores()}
        for sequence in self.sequences:
            key = f"{self.headline.key}/{sequence.name}"
            flat[key] = sequence.mean("J", self.headline_protocol, LABEL_FREE)
        return {key: value for key, value in flat.items() if not math.isnan(value)}

    def to_json(self) -> str:
        """Return the report as JSON; every score in it is labelled in full."""
        document = {
            "format": 1,
            "benchmark": self.benchmark,
            "coverage": self.coverage,
            "notes": list(self.notes),
            "created": self.created,
            "seconds": round(self.seconds, 2),
            "model": asdict(self.model),
            "optical_flow": self.optical_flow,
            "merged_by_features": self.features,
            "crf": None if self.crf is None else {"name": self.crf, **asdict(crf_preset(self.crf))},
            "checkpoint": self.checkpoint,
            "foreground_choices": [asdict(FOREGROUND_CHOICES[name]) for name in self.choices],
            "protocols": {name: protocol.description for name, protocol in PROTOCOLS.items()},
            "headline": asdict(self.headline),
            "scores": [asdict(score) for score in self.scores()],
            "label_free_rules": self._rules_json(self.sequences),
            "sequences": [self._sequence_json(sequence) for sequence in self.sequences],
        }
        return json.dumps(with_nulls(document), indent=1, allow_nan=False)

    def _rules_json(self, sequences: Sequence[SequenceScores]) -> dict[str, float]:
        """J of every label-free rule by the headline's protocol, of masks before any refinement."""
        rules = {sequence.name: sequence.rules for sequence in sequences}
        return average_rules(rules, {sequence.name: sequence.scored for sequence in sequences}, self.headline_protocol)

    def _sequence_json(self, sequence: SequenceScores) -> dict[str, Any]:
        scores = []
        for choice, values in sequence.choices.items():
            label = {
                "foreground": choice,
                "uses_annotations": FOREGROUND_CHOICES[choice].uses_annotations,
                "checkpoint": self.checkpoint,
                "crf": self.crf,
            }
            for measure in MEASURES:
                scores.append(
                    {
                        "measure": measure,
                        **label,
                        "all_annotated_frames": asdict(values.statistics(measure)),
                        "mean_by_protocol": {
                            protocol: sequence.mean(measure, protocol, choice) for protocol in PROTOCOLS
                        },
                        "per_frame": list(values.j if measure == "J" else values.f),
                    }
                )
        return {
            "name": sequence.name,
            "num_frames": sequence.num_frames,
            "size": list(sequence.size),
            "frames": list(sequence.frames),
            "label_free_foreground": list(sequence.foreground),
            "label_free_rule": sequence.rule,
            "label_free_rules": self._rules_json([sequence]),
            "scores": scores,
        }


def _average(sequences: Sequence[SequenceScores], measure: Measure, protocol: str, choice: str) -> float:
    """Average over sequences; NaN where the protocol leaves nothing of one that it needs, since less is another number.

    Frames can be left out since a sequence is short, or has empty masks throughout, which RCF's protocol skips.
    """
    values = {sequence.name: sequence.choices[choice].values(measure, protocol) for sequence in sequences}
    frames = {sequence.name: sequence.scored for sequence in sequences}
    has_frames = [bool(counted_scores(values[name], protocol, frames[name])) for name in values]
    enough = all(has_frames) if PROTOCOLS[protocol].by_sequence else any(has_frames)
    return average(values, protocol, frames) if enough else math.nan


__all__ = [
    "FOREGROUND_CHOICES",
    "GROUND_TRUTH_PER_FRAME",
    "HEADLINE_PROTOCOL",
    "LABEL_FREE",
    "MEASURES",
    "ORACLE_PER_CLIP",
    "ORACLE_PER_FRAME",
    "EvaluatedModel",
    "EvaluationReport",
    "ForegroundChoice",
    "FrameScores",
    "Measure",
    "Score",
    "SequenceScores",
]
