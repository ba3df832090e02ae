"""What is computed: one frozen, typed tree per experiment. Where it runs is in ``tasks/settings.py``.

A preset is a YAML file in ``pipelines/experiments`` that holds only what differs from the defaults here; overrides
(``--set optimisation.num_steps=500``) come last. The resolved tree is stored in every checkpoint and MLflow run, so a
run can be rebuilt from its record. A misspelt key is an error at any depth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.methods.gwm import GwmConfig
from tasks.checkpoint_choice import CheckpointRule, candidate_steps
from tasks.errors import ConfigError

_HELD_OUT_FRAMES_PERCENT = 10  # six frames of a DAVIS clip: enough pairs, and little that is not learnt from


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Frozen):
    """Which samples training draws from a dataset."""

    gaps: tuple[int, ...] = Field(
        default=(1, -1, 2, -2), description="Frame gaps to learn from (GWM: four for DAVIS, {-6,-3,3,6} for FBMS)."
    )
    gap_sampling: Literal["uniform", "released"] = Field(
        default="uniform",
        description="uniform as the paper says; released: +1, +2, -1 at 50, 33, 17 % as the authors' code draws.",
    )
    gaps_from: Literal["experiment", "recipe"] = Field(
        default="experiment",
        description="recipe: each clip over the gaps it was ingested with, whatever `gaps` says, for training on "
        "several datasets together (GWM: DAVIS2016 and SegTrackv2 over 1 and 2, FBMS59 over 3 and 6).",
    )
    horizontal_flip: bool = Field(default=False, description="Mirror half of the samples, flow included.")
    held_out_percent: int = Field(
        default=0, ge=0, lt=100, description="Share of the videos, chosen by content, that is never trained on."
    )
    min_frames: int = Field(default=0, ge=0, description="Shorter clips are not trained on.")
    min_motion: float = Field(
        default=0.0,
        ge=0,
        description="Clips with less mean motion, in frame diagonals per frame, are not trained on; 1e-4 leaves out "
        "stills. Not by default: a small object before a camera that stands still moves little too.",
    )
    held_out_frames_percent: int | None = Field(
        default=None,
        ge=0,
        lt=100,
        description="Share of each clip's frames, the last ones, that the network is never shown; unset: 10 where the "
        "checkpoint is chosen by them, else 0.",
    )
    cache_mb: int = Field(default=1024, ge=0, description="Prepared samples kept in memory by each worker, in MB.")

    @model_validator(mode="after")
    def _gaps_are_usable(self) -> DataConfig:
        if not self.gaps or 0 in self.gaps or len(set(self.gaps)) != len(self.gaps):
            raise ValueError(f"gaps={self.gaps}: expected distinct frame gaps other than 0, such as (1, -1, 2, -2)")
        return self


class OptimisationConfig(_Frozen):
    """AdamW with linear warm-up and polynomial decay (GWM, section 4.1 and its released configuration)."""

    num_steps: int = Field(default=15_000, ge=1)
    global_batch_size: int = Field(default=8, ge=1, description="Samples of a step over all workers.")
    learning_rate: float = Field(default=1.5e-4, gt=0)
    backbone_rate_factor: float = Field(
        default=1.0, gt=0, description="Multiplies the backbone's learning rate. Released code: 1, ResNet-50 0.1."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Not applied to norms, biases of norms and embeddings.")
    warmup_steps: int = Field(default=1500, ge=0)
    warmup_start_factor: float = Field(default=1e-6, ge=0, le=1)
    decay_power: float = Field(default=0.9, ge=0)
    decay_horizon_steps: int | None = Field(
        default=None,
        ge=1,
        description="Step at which the rate is zero; unset: num_steps. Released code: 160 000.",
    )
    gradient_clip_norm: float = Field(default=0.01, gt=0)
    precision: Literal["f32", "bf16"] = Field(default="f32", description="bf16 runs the network under autocast.")
    channels_last: bool = Field(default=True, description="Memory format; faster on CPU and tensor cores.")
    compile: bool = Field(default=False, description="torch.compile the networks; needs a C++ compiler.")
    seed: int = Field(default=42, ge=0)


class RecordingConfig(_Frozen):
    """How often a training run tells what it does."""

    checkpoint_every_steps: int = Field(default=500, ge=1)
    num_checkpoints_kept: int = Field(default=2, ge=1)
    log_every_steps: int = Field(default=20, ge=1)
    pictures_every_steps: int = Field(default=500, ge=1, description="Overlay images to MLflow.")
    checkpoint_choice: CheckpointRule = Field(
        default="last",
        description="Which checkpoint becomes the model: the last, the one of least held-out loss, or the most stable. "
        "None sees a label (the released code takes the best J on labelled validation data).",
    )
    num_candidates: int = Field(
        default=6, ge=2, description="Checkpoints, evenly spaced, that are compared unless the last one is taken."
    )


class ExperimentConfig(_Frozen):
    """Everything that decides what a training run computes."""

    name: str = Field(description="Preset name; runs are filed under it.", pattern=r"^[a-z0-9_\-]+$")
    method: GwmConfig = Field(default_factory=GwmConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    optimisation: OptimisationConfig = Field(default_factory=OptimisationConfig)
    recording: RecordingConfig = Field(default_factory=RecordingConfig)

    @model_validator(mode="after")
    def _choice_has_frames(self) -> ExperimentConfig:
        if self.recording.checkpoint_choice != "last" and self.data.held_out_frames_percent == 0:
            raise ValueError(
                f"recording.checkpoint_choice={self.recording.checkpoint_choice} compares checkpoints on frames that "
                "are not trained on: expected data.held_out_frames_percent above 0, such as 10, or unset"
            )
        return self

    @property
    def held_out_frames_percent(self) -> int:
        """Share of each clip's frames that training leaves out."""
        if self.data.held_out_frames_percent is not None:
            return self.data.held_out_frames_percent
        return 0 if self.recording.checkpoint_choice == "last" else _HELD_OUT_FRAMES_PERCENT

    @property
    def candidate_steps(self) -> tuple[int, ...]:
        """Steps after which a checkpoint is kept to be compared; none where the last one is taken in any case."""
        recording = self.recording
        if recording.checkpoint_choice == "last":
            return ()
        return candidate_steps(self.optimisation.num_steps, recording.num_candidates)

    def fingerprint(self) -> str:
        """Twelve hex digits that change when anything that is computed changes."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def available_presets(folder: Path) -> list[str]:
    """Names of the presets in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_experiment(name: str, folder: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read preset ``name`` from ``folder`` and apply ``key.path=value`` overrides; values are YAML.

    Raises ConfigError naming the preset, the key and what was expected.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no experiment {name!r}: expected one of {', '.join(available_presets(folder))}")
    tree = yaml.safe_load(path.read_text()) or {}
    return resolve_experiment({"name": name, **tree}, overrides)


def resolve_experiment(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Validate a tree of plain values with overrides applied."""
    merged = json.loads(json.dumps(tree))
    for override in overrides:
        _apply_override(merged, override)
    try:
        return ExperimentConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def _apply_override(tree: dict[str, Any], override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator or not path:
        raise ConfigError(f"--set {override!r}: expected key.path=value, such as optimisation.num_steps=500")
    *parents, leaf = path.split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override!r}: {key!r} is a value, not a group of keys")
    try:
        tree[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: {value!r} is not YAML; expected such as 500 or [1, -1]") from error


def _keys_beside(path: Sequence[int | str]) -> str:
    node: Any = ExperimentConfig(name="any").model_dump()
    for part in path[:-1]:
        node = node[part]
    return ", ".join(node)


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "experiment"
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # of a model, of a dataclass
            lines.append(f"{where}: no such key; expected one of {_keys_beside(item['loc'])}")
            continue
        got = "" if item["type"] == "missing" else f" (got {item['input']!r})"
        lines.append(f"{where}: {item['msg']}{got}")
    return "experiment is not valid: " + "; ".join(lines)
