"""What choosing a checkpoint without labels costs against the choice that sees them. Nothing is decided from this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.checkpoint_choice import RULES, CandidateScores, choose_checkpoint
from tasks.errors import ModelNotFoundError
from tasks.model_package import Provenance, is_model, read_description
from tasks.run_folder import RunFolder
from tasks.settings import Settings
from tasks.storage import location

BEST_BY_LABELS = "best by labels"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One checkpoint that a model was chosen among: the folder it lies in, and what was measured without labels."""

    scores: CandidateScores
    folder: str


def find_candidates(model_folder: str, settings: Settings) -> tuple[Candidate, ...]:
    """Return the checkpoints that the model in a folder was chosen among.

    Raises ModelNotFoundError where it was not chosen, or where they do not lie in this machine's runs any more.
    """
    provenance = Provenance.model_validate(read_description(location(model_folder))["provenance"])
    if not provenance.candidates or provenance.training_id is None:
        raise ModelNotFoundError(
            f"the model in {model_folder} was not chosen among several checkpoints: train with --checkpoint "
            "held_out_loss or --checkpoint stability, which keep them"
        )
    run = RunFolder(root=location(settings.runs_root) / provenance.training_id)
    found = tuple(Candidate(scores=scores, folder=run.candidate(scores.step).uri) for scores in provenance.candidates)
    missing = [str(one.scores.step) for one in found if not is_model(location(one.folder))]
    if missing:
        raise ModelNotFoundError(
            f"no checkpoint after {', '.join(missing)} steps in {run.candidates.uri}: expected those of training "
            f"{provenance.training_id}; set GWM_RUNS_URI to where it was trained"
        )
    return found


def candidate_rows(candidates: Sequence[CandidateScores], j_by_step: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return one row per checkpoint: its scores without labels, its label-free J, 0..1, and who would choose it."""
    choices = _choices(candidates, j_by_step)
    return [
        {
            "step": scores.step,
            "held-out loss": f"{scores.held_out_loss:.4g}",
            "temporal agreement": scores.temporal_agreement,
            "neighbour agreement": scores.neighbour_agreement,
            "stability": scores.stability,
            "J label-free": j_by_step[scores.step],
            "chosen by": ", ".join(name for name, step in choices.items() if step == scores.step),
        }
        for scores in candidates
    ]


def cost_rows(candidates: Sequence[CandidateScores], j_by_step: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return one row per rule: the step it takes, its J, 0..1, and how far that is below the best by labels."""
    choices = _choices(candidates, j_by_step)
    best = j_by_step[choices[BEST_BY_LABELS]]
    return [
        {
            "checkpoint": name,
            "labels used": "yes" if name == BEST_BY_LABELS else "no",
            "step": step,
            "J label-free": j_by_step[step],
            "below the best": best - j_by_step[step],
        }
        for name, step in choices.items()
    ]


def _choices(candidates: Sequence[CandidateScores], j_by_step: Mapping[int, float]) -> dict[str, int]:
    by_rule = {rule.replace("_", "-"): choose_checkpoint(rule, candidates).step for rule in RULES}
    best = max(candidates, key=lambda scores: (j_by_step[scores.step], scores.step)).step
    return {**by_rule, BEST_BY_LABELS: best}
