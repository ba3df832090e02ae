"""Fully connected CRF: pixels that are near and alike in colour come to share a label (post-processing).

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NeurIPS 2011, as the
public pydensecrf computes it: Potts compatibility, symmetric normalisation of the kernels, mean field with the filters
of the permutohedral lattice (Adams et al. 2010). With f the features of a pixel and Q its label probabilities::

    k(i, j) = n_i exp(-|f_i - f_j|^2 / 2) n_j        n_i such that rows of the kernel sum to about one
    Q_i(l) ~ exp(-unary_i(l) + sum over terms of weight * sum_j k(i, j) Q_j(l))

On the CPU this runs compiled, one thread a frame; on other devices in torch operations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from model import dense_crf_compiled, dense_crf_tensor
from model.compiled import AVAILABLE
from model.errors import InputError
from model.permutohedral import LatticeGeometry

CrfBackend = Literal["auto", "compiled", "tensor"]

_SUM_TOLERANCE = 1e-3  # of probabilities, that went through 16 bits or bilinear resizing
_BRIGHTEST = 255


@dataclass(frozen=True, kw_only=True)
class CrfConfig:
    """Terms of the energy and how masks enter it.

    position_px, colour: standard deviations of the bilateral term, in pixels and in levels of 0..255; bilateral_weight.
    smoothness_px: standard deviation of the term that sees positions only; smoothness_weight 0 leaves it out.
    num_iterations: of mean field.
    mask_gain: factor on foreground masks before they are rounded down to 8 bits and divided by their maximum; None
        takes masks as they are.
    least_probability: bounds probabilities away from 0, where the unary energy -log p is not finite.
    """

    position_px: float
    colour: float
    bilateral_weight: float
    smoothness_px: float = 1.0
    smoothness_weight: float = 0.0
    num_iterations: int
    mask_gain: float | None = None
    least_probability: float = 1e-6  # RCF's final CRF clips to [1e-6, 1 - 1e-6]; GWM's cell takes log softmax

    def __post_init__(self) -> None:
        widths = (self.position_px, self.colour, self.smoothness_px, 1.0 if self.mask_gain is None else self.mask_gain)
        weights = (self.bilateral_weight, self.smoothness_weight)
        if not all(math.isfinite(value) and value > 0 for value in widths):
            raise InputError(f"{self}: expected standard deviations and mask_gain above 0")
        if not all(math.isfinite(value) and value >= 0 for value in weights) or not any(weights):
            raise InputError(f"{self}: expected weights of at least 0, not both 0")
        if self.num_iterations < 1 or not 0 < self.least_probability < 0.5:
            raise InputError(f"{self}: expected at least 1 iteration and a least_probability in (0, 0.5)")


CRF_PRESETS: dict[str, CrfConfig] = {
    # The disabled cell of GWM's released image notebook; what its video scores with CRF used was not published.
    "gwm": CrfConfig(
        position_px=67.0, colour=3.0, bilateral_weight=4.0, smoothness_px=1.0, smoothness_weight=3.0, num_iterations=10
    ),
    # RCF's released post-processing of final masks, which goes back to CIS: one bilateral term, masks over 0.8.
    "rcf": CrfConfig(position_px=60.0, colour=5.0, bilateral_weight=5.0, num_iterations=50, mask_gain=1 / 0.8),
}
"""Settings by the name that reports print beside every score."""


def crf_preset(name: str) -> CrfConfig:
    """Return the settings of that name; raises InputError for an unknown one."""
    if name not in CRF_PRESETS:
        raise InputError(f"crf={name!r}: expected one of {', '.join(CRF_PRESETS)}")
    return CRF_PRESETS[name]


class DenseCrf:
    """Refines label probabilities by the image they belong to. Holds no state: threads may share it."""

    def __init__(self, config: CrfConfig, *, backend: CrfBackend = "auto") -> None:
        """Hold the settings.

        backend: ``compiled`` works on the CPU and needs numba, ``tensor`` works where the image is; ``auto`` compiles
        for images on the CPU. Raises InputError for another name, and for ``compiled`` without numba.
        """
        if backend not in get_args(CrfBackend):
            raise InputError(f"backend={backend!r}: expected one of {', '.join(get_args(CrfBackend))}")
        if backend == "compiled" and not AVAILABLE:
            raise InputError("backend='compiled' needs numba, which is not installed; use 'tensor' or install numba")
        self.config = config
        self.backend = backend

    def refine(self, image: UInt8[Tensor, "3 H W"], probabilities: Float[Tensor, "l H W"]) -> Float[Tensor, "l H W"]:
        """Return the probabilities of l >= 2 labels after mean field; the unary energy is -log of those given.

        image: RGB. probabilities: one distribution per pixel. Result: float32 on the image's device.
        Raises InputError for shapes that do not fit, one label, and values that are no probabilities.
        """
        _check(image, probabilities)
        probabilities = probabilities.detach().to(image.device, torch.float32)
        unary = -probabilities.clamp_min(self.config.least_probability).log().flatten(1).contiguous()
        terms = self._terms(image)
        if self._compiles(image):
            arrays = [(weight, features.numpy(), geometry) for weight, features, geometry in terms]
            refined = dense_crf_compiled.mean_field(arrays, unary.numpy(), self.config.num_iterations)
            return torch.from_numpy(refined).view_as(probabilities)
        return dense_crf_tensor.mean_field(terms, unary, self.config.num_iterations).view_as(probabilities)

    def refine_mask(self, image: UInt8[Tensor, "3 H W"], foreground: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
        """Return the refined probability of the foreground; above 0.5 it is the more likely label.

        foreground: soft mask in 0..1, prepared as the settings say. Raises InputError as ``refine`` does.
        """
        if foreground.shape != image.shape[1:]:
            raise InputError(
                f"foreground={tuple(foreground.shape)} for an image of {tuple(image.shape)}: expected equal sizes"
            )
        least = self.config.least_probability
        foreground = self._prepared(foreground.detach().float()).clamp(least, 1 - least)
        return self.refine(image, torch.stack([foreground, 1 - foreground]))[0]

    def _prepared(self, foreground: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
        """Amplify a mask of 8 bits and stretch it to its maximum, as RCF's script does.

        Its blur of sigma 0.1 before the stretch changes nothing: the weight of the next pixel is exp(-50).
        """
        if self.config.mask_gain is None:
            return foreground
        levels = ((foreground * _BRIGHTEST).round() * self.config.mask_gain).clamp_max(_BRIGHTEST).floor()
        return levels / levels.max().clamp_min(1)

    def _terms(self, image: UInt8[Tensor, "3 H W"]) -> list[tuple[float, Tensor, LatticeGeometry]]:
        """Return weight, features in standard deviations and their geometry of each term that counts."""
        config, terms = self.config, []
        height, width = image.shape[1:]
        if config.smoothness_weight:
            features = _positions(image, config.smoothness_px)
            largest = [(width - 1) / config.smoothness_px, (height - 1) / config.smoothness_px]
            terms.append((config.smoothness_weight, features, LatticeGeometry.up_to(largest)))
        if config.bilateral_weight:
            colours = image.flatten(1).T.float() / config.colour
            features = torch.cat([_positions(image, config.position_px), colours], dim=1)
            largest = [(width - 1) / config.position_px, (height - 1) / config.position_px]
            largest += [_BRIGHTEST / config.colour] * 3
            terms.append((config.bilateral_weight, features, LatticeGeometry.up_to(largest)))
        return terms

    def _compiles(self, image: Tensor) -> bool:
        on_cpu = image.device.type == "cpu"
        if self.backend == "compiled" and not on_cpu:
            raise InputError(f"backend='compiled' got an image on {image.device}: move it to the CPU, or use 'tensor'")
        return self.backend == "compiled" or (self.backend == "auto" and on_cpu and AVAILABLE)


def _positions(image: UInt8[Tensor, "3 H W"], deviation_px: float) -> Float[Tensor, "n 2"]:
    """Return column and row of each pixel in standard deviations."""
    _, height, width = image.shape
    rows = torch.arange(height, dtype=torch.float32, device=image.device) / deviation_px
    columns = torch.arange(width, dtype=torch.float32, device=image.device) / deviation_px
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def _check(image: Tensor, probabilities: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8 or 0 in image.shape:
        raise InputError(f"image={image.dtype} {tuple(image.shape)}: expected uint8 RGB [3, H, W]")
    if probabilities.ndim != 3 or probabilities.shape[1:] != image.shape[1:]:
        raise InputError(
            f"probabilities={tuple(probabilities.shape)} for an image of {tuple(image.shape)}: expected [l, H, W] of "
            "the image's size; resize them first"
        )
    if probabilities.shape[0] < 2:
        raise InputError("probabilities of 1 label: expected at least 2, such as a mask and its complement")
    if not probabilities.isfinite().all():
        raise InputError("probabilities hold NaN or infinite values: expected one distribution per pixel")
    gap = float((probabilities.sum(0) - 1).abs().max())
    if probabilities.min() < 0 or gap > _SUM_TOLERANCE:
        raise InputError(
            f"probabilities from {float(probabilities.min()):.3g}, with sums up to {gap:.3g} away from 1: expected one "
            "distribution per pixel, such as a softmax over labels"
        )
