"""Test-time adaptation: a few more steps of the training, on the one clip that is about to be segmented.

GWM, section 4.3 and Table 4: for each test video separately, 20 gradient steps of the training loss, by the training's
optimiser, rate and batch size, on that video's frames and flow; then it is segmented. No label is involved. The authors
released no loop; where the paper is silent, training is continued as if it had not ended, but for two things:

- The rate, unless ``rate`` says ``full``, is that of the last step: 0.9 of the full rate by the released schedule, a
  tenth of it where it decayed to nothing. (At the full rate the loss of gwm_unet_davis16 rises on both clips of
  DAVIS2016 that were tried, by 27 and 35 %; at a tenth it falls on all four that were tried, by 4 to 15 %.)
- Batch normalisation keeps the statistics of the training: a batch of one clip is no sample of what they stand for.
  (Taking the clip's costs that model 21 J on ``dog``, oracle per clip, before a weight has changed.) GWM's MaskFormer
  has no such layers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from model.methods.base import Method
from model.optical_flow import OpticalFlowEstimator
from model.types import FramePair
from tasks.clip_samples import choose_pairs, clip_samples
from tasks.config import ExperimentConfig, OptimisationConfig
from tasks.decode import DecodeOptions, iterate_frames, probe
from tasks.errors import DatasetError, InputError
from tasks.footage import FootageItem
from tasks.model_package import LoadedModel
from tasks.optimiser import build_optimiser, learning_rate_at
from tasks.train_step import train_step

AdaptationRate = Literal["final", "full"]

NO_MOTION_PX = 0.1
"""Motion below this is the estimator's noise (``GwmConfig.flow_scaling_floor_px``); px of the reduced frame."""

FLAT_LEVELS = 2
"""A frame whose brightest and darkest values are no farther apart shows nothing; of 0..255."""

LEAST_RATE_SHARE = 0.1
"""Of the full rate: see above."""

_MOVING_SHARE = 0.01  # of the pixels, so that a single wild vector is no motion
_LOSS_BATCHES = 2  # that the loss before and after is the mean of


@dataclass(frozen=True, kw_only=True)
class AdaptationOptions:
    """How a model is adapted to a clip.

    num_steps: updates (paper: 20). rate: final as above; full is the training's, as the paper has it by its words.
    learning_rate: instead of either. max_pairs: frame pairs that are held,
    1 to 4 MB each. max_side: frames are reduced to this longer side before optical flow; 854 is that of DAVIS at 480p,
    which training sees.
    """

    num_steps: int = 20
    rate: AdaptationRate = "final"
    learning_rate: float | None = None
    max_pairs: int = 96
    max_side: int = 854

    @property
    def sentence(self) -> str:
        """What is done to a model, as its reference says it beside scores."""
        rate = f"rate {self.learning_rate:.1e}" if self.learning_rate else f"the {self.rate} rate"
        return f"adapted to each sequence in {self.num_steps} steps at {rate}"

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.max_pairs < 1 or self.max_side < 32:
            raise InputError(
                f"AdaptationOptions(num_steps={self.num_steps}, max_pairs={self.max_pairs}, max_side={self.max_side}): "
                "expected at least 1 step, 1 pair and 32 pixels"
            )
        if self.rate not in get_args(AdaptationRate):
            raise InputError(f"AdaptationOptions(rate={self.rate!r}): expected {' or '.join(get_args(AdaptationRate))}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InputError(f"AdaptationOptions(learning_rate={self.learning_rate}): expected a rate above 0, or none")


@dataclass(frozen=True, kw_only=True)
class AdaptationRecord:
    """What the adaptation to one clip did.

    loss_before, loss_after: training loss of the model that segments, on the same pairs. skipped: why the model was
    left as it is; None when it was adapted.
    """

    num_steps: int
    learning_rate: float
    num_pairs: int = 0
    loss_before: float | None = None
    loss_after: float | None = None
    skipped: str | None = None

    @property
    def sentence(self) -> str:
        """The record in words."""
        if self.skipped is not None:
            return f"not adapted: {self.skipped}"
        return (
            f"adapted in {self.num_steps} steps at rate {self.learning_rate:.1e} on {self.num_pairs} frame pairs: loss "
            f"{self.loss_before:.4g} before, {self.loss_after:.4g} after"
        )


def adapt_method(
    method: Method,
    samples: Sequence[Mapping[str, Tensor]],
    config: OptimisationConfig,
    num_steps: int,
    *,
    learning_rate: float | None = None,
    device: str = "cpu",
) -> Method:
    """Return a copy of ``method`` after ``num_steps`` updates on ``samples``; ``method`` itself stays as it is.

    samples: as ``method.prepare`` makes them. learning_rate: None takes ``adaptation_rate``. The result depends on the
    arguments only: batches and all other draws follow from the seed of the configuration. A step whose loss is not
    finite changes nothing. Frozen parameters are shared with ``method``. Raises InputError without samples.
    """
    if not samples:
        raise InputError("no samples to adapt to: expected at least one prepared frame pair")
    module = cast(nn.Module, method)
    frozen = {id(parameter): parameter for parameter in module.parameters() if not parameter.requires_grad}
    adapted = copy.deepcopy(module, frozen).to(device)
    if config.channels_last:
        adapted = adapted.to(memory_format=torch.channels_last)
    settings = adaptation_settings(config, learning_rate)
    optimiser = build_optimiser(adapted.train(), settings)
    for layer in adapted.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
    for step in range(settings.num_steps, settings.num_steps + num_steps):
        words = np.random.Philox(np.random.SeedSequence((settings.seed, step))).random_raw(settings.global_batch_size)
        batch = _stacked([samples[int(word % len(samples))] for word in words.tolist()])
        train_step(adapted, batch, optimiser, settings, step=step, rank=0, device=torch.device(device))
    return cast(Method, adapted.eval())


def adaptation_rate(config: OptimisationConfig, rate: AdaptationRate = "final") -> float:
    """Return the learning rate at which a training ended, or a tenth of its full rate where it ended below that.

    rate: ``full`` returns the rate that the training was given.
    """
    if rate == "full":
        return config.learning_rate
    return max(learning_rate_at(config.num_steps - 1, config), LEAST_RATE_SHARE * config.learning_rate)


def adaptation_settings(config: OptimisationConfig, learning_rate: float | None = None) -> OptimisationConfig:
    """Return the settings of the steps after the last: one rate, neither rising nor falling."""
    rate = learning_rate or adaptation_rate(config)
    schedule = {"warmup_steps": 0, "decay_power": 0.0, "decay_horizon_steps": None}
    return config.model_copy(update={"learning_rate": rate, **schedule})


@torch.no_grad()
def mean_loss(
    method: Method, samples: Sequence[Mapping[str, Tensor]], *, batch_size: int, device: str = "cpu"
) -> float:
    """Return the training loss, without an update, over evenly spaced samples, two batches at most."""
    wanted = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), _LOSS_BATCHES * batch_size)).round())
    chosen = [samples[int(index)] for index in wanted]
    total = 0.0
    for start in range(0, len(chosen), batch_size):
        batch = _stacked(chosen[start : start + batch_size])
        on_device = {name: value.to(device) for name, value in batch.items()}
        total += float(method.training_loss(on_device).total) * min(batch_size, len(chosen) - start)
    return total / len(chosen)


class ClipAdapter:
    """Adapts copies of one model to clips; whatever clips came before, each starts from the same weights."""

    def __init__(
        self,
        method: Method,
        experiment: ExperimentConfig,
        estimator: OpticalFlowEstimator,
        options: AdaptationOptions | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        self.options = options or AdaptationOptions()
        self._method = method
        self._experiment = experiment
        self._estimator = estimator
        self._device = device

    def adapt(self, item: FootageItem, decode: DecodeOptions | None = None) -> tuple[Method, AdaptationRecord]:
        """Return the model for a clip and what was done; the model as it is, with the reason, where nothing can be.

        Raises FootageError for footage that can not be read.
        """
        decode, config = decode or DecodeOptions(), self._experiment.optimisation
        samples, skipped = self._samples(item, decode)
        rate = self.options.learning_rate or adaptation_rate(config, self.options.rate)
        if skipped is not None:
            return self._method, AdaptationRecord(num_steps=0, learning_rate=rate, skipped=skipped)
        before = mean_loss(self._method, samples, batch_size=config.global_batch_size, device=self._device)
        adapted = adapt_method(
            self._method, samples, config, self.options.num_steps, learning_rate=rate, device=self._device
        )
        record = AdaptationRecord(
            num_steps=self.options.num_steps,
            learning_rate=rate,
            num_pairs=len(samples),
            loss_before=before,
            loss_after=mean_loss(adapted, samples, batch_size=config.global_batch_size, device=self._device),
        )
        return adapted, record

    def _samples(self, item: FootageItem, decode: DecodeOptions) -> tuple[list[dict[str, Tensor]], str | None]:
        """Return the clip's samples, or why there are none."""
        num_frames = probe(item).num_frames if decode.fps is None else None
        if num_frames is None:
            num_frames = sum(1 for _ in iterate_frames(item, decode))
        try:
            pairs = choose_pairs(num_frames, self._experiment, self.options.max_pairs)
        except DatasetError:
            return [], f"{num_frames} frame{'s' if num_frames != 1 else ''} make no pair at the gaps of the training"
        frames: Iterable[np.ndarray] = (frame.image for frame in iterate_frames(item, decode))
        usable = _Usable()
        try:
            samples = clip_samples(
                frames,
                pairs,
                self._method.prepare,
                self._estimator,
                max_side=self.options.max_side,
                is_usable=usable,
            )
        except InputError as error:  # frames too small for the estimator
            return [], str(error)
        return samples, None if samples else usable.explain()


def build_adapter(
    model: LoadedModel, estimator: OpticalFlowEstimator | None, options: AdaptationOptions, *, device: str = "cpu"
) -> ClipAdapter:
    """Build the adapter of a loaded model, with the settings that it was trained with.

    Raises InputError without an estimator: the training loss needs optical flow.
    """
    if estimator is None:
        raise InputError("adaptation needs optical flow and got no estimator: choose one, such as dis")
    return ClipAdapter(model.method, model.experiment, estimator, options, device=device)


class _Usable:
    """Tells pairs that something can be learnt from, and remembers what the others lacked."""

    def __init__(self) -> None:
        self.num_flat = 0
        self.num_still = 0

    def __call__(self, pair: FramePair) -> bool:
        flat = int(pair.image.max()) - int(pair.image.min()) <= FLAT_LEVELS
        moving = (pair.flow.nan_to_num(0.0).square().sum(0).sqrt() > NO_MOTION_PX).float().mean() > _MOVING_SHARE
        self.num_flat += flat
        self.num_still += not flat and not bool(moving)
        return not flat and bool(moving)

    def explain(self) -> str:
        if self.num_flat + self.num_still == 0:
            return "the clip ended before its first frame pair"
        if self.num_flat:
            return f"{self.num_flat} frames looked at are of one flat colour, {self.num_still} do not move"
        return f"nothing moves in {self.num_still} frame pairs looked at"


def _stacked(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
