"""The one protocol that the three methods share.

Training, evaluation, promotion and segmentation know a method only by this. A fourth method is one file beside this
one, one line in ``model/methods/__init__.py`` and one preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from model.types import FramePair, LossTerms, Segmentation


@runtime_checkable
class Method(Protocol):
    """A label-free segmentation method; implementations are ``torch.nn.Module``s.

    ``forward`` must do what ``training_loss`` does, so that DistributedDataParallel can wrap the method.
    """

    num_segments: int

    def prepare(self, pair: FramePair) -> dict[str, Tensor]:
        """Turn one frame pair into what ``training_loss`` needs, without touching a parameter.

        Runs in the loader, on the CPU; its result depends on nothing but the pair, so it may be cached. Every value
        keeps its shape from sample to sample, so that samples stack.
        """
        ...

    def training_loss(self, batch: Mapping[str, Tensor], progress: float = 1.0) -> LossTerms:
        """Return the loss of a stacked batch of prepared samples.

        progress: share of the training's steps that are done, for methods that train in phases; 1 is the last phase.
        """
        ...

    def segment(self, images: Float[Tensor, "b 3 H W"]) -> Segmentation:
        """Split RGB images in 0..255, of any size, into K soft segments at the network's own resolution."""
        ...


@runtime_checkable
class AnySizeMethod(Protocol):
    """A method whose network can look at images at any size; still images are scored at their own."""

    num_segments: int

    def segment_at(self, images: Float[Tensor, "b 3 H W"], size: tuple[int, int]) -> Segmentation:
        """Split images like ``Method.segment``, the network looking at ``size`` (rows, columns)."""
        ...
