"""The fully connected CRF against its definition by dense matrices, and cases whose answer is known."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model import dense_crf
from model.dense_crf import CRF_PRESETS, CrfBackend, CrfConfig, DenseCrf, crf_preset
from model.errors import InputError

BACKENDS: tuple[CrfBackend, ...] = ("compiled", "tensor")
SMALL = CrfConfig(
    position_px=6.0, colour=20.0, bilateral_weight=2.0, smoothness_px=1.5, smoothness_weight=1.0, num_iterations=2
)
MEAN_TOLERANCE = 3e-3
"""The lattice approximates the Gaussian: up to 2.1e-3 was found, and 5.2e-2 to 2.0e-1 is what the CRF changes here."""


def disk_scene(num_labels: int, height: int = 24, width: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A disk of another colour under noise, and noisy probabilities of which the first two labels know it a little."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    disk = (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (height / 4) ** 2
    colours = torch.where(
        disk, torch.tensor([150.0, 100, 60])[:, None, None], torch.tensor([60.0, 90, 120])[:, None, None]
    )
    image = (colours + 6 * torch.randn(3, height, width, generator=random)).clamp(0, 255).to(torch.uint8)
    logits = torch.randn(num_labels, height, width, generator=random)
    logits[0] += 1.5 * disk
    logits[1] += 1.5 * ~disk
    return image, logits.softmax(0)


def by_dense_matrices(config: CrfConfig, image: Tensor, probabilities: Tensor) -> Tensor:
    """Mean field by its definition: every pixel with every pixel, true Gaussians, float64."""
    height, width = image.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    positions = torch.stack([columns, rows], dim=-1).flatten(0, 1).double()
    colours = image.flatten(1).T.double()
    kernel = torch.zeros(height * width, height * width, dtype=torch.float64)
    for weight, features in (
        (config.smoothness_weight, positions / config.smoothness_px),
        (config.bilateral_weight, torch.cat([positions / config.position_px, colours / config.colour], dim=1)),
    ):
        gaussian = (-torch.cdist(features, features).square() / 2).exp()
        norm = gaussian.sum(1).rsqrt()
        kernel += weight * norm[:, None] * gaussian * norm
    unary = -probabilities.double().log().flatten(1)
    q = (-unary).softmax(0)
    for _ in range(config.num_iterations):
        q = (q @ kernel - unary).softmax(0)
    return q.view_as(probabilities)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("num_labels", "config"),
    [
        (2, SMALL),
        (4, SMALL),
        (2, replace(SMALL, smoothness_weight=0.0)),
        (3, replace(SMALL, bilateral_weight=0.0, smoothness_px=3.0)),
    ],
)
def test_mean_field_is_close_to_its_definition(backend: CrfBackend, num_labels: int, config: CrfConfig) -> None:
    image, probabilities = disk_scene(num_labels)
    refined = DenseCrf(config, backend=backend).refine(image, probabilities)
    truth = by_dense_matrices(config, image, probabilities)
    assert (refined - truth).abs().mean() < MEAN_TOLERANCE
    assert (probabilities - truth).abs().mean() > 15 * MEAN_TOLERANCE
    torch.testing.assert_close(refined.sum(0), torch.ones(24, 32), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"position_px": 3.0},
        {"colour": 10.0},
        {"bilateral_weight": 1.6},
        {"smoothness_px": 3.0},
        {"smoothness_weight": 0.8},
        {"num_iterations": 1},
    ],
)
def test_the_tolerance_tells_other_settings_apart(change: dict[str, float]) -> None:
    image, probabilities = disk_scene(2)
    refined = DenseCrf(replace(SMALL, **change)).refine(image, probabilities)
    assert (refined - by_dense_matrices(SMALL, image, probabilities)).abs().mean() > MEAN_TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
def test_regions_of_one_colour_share_what_they_believe(backend: CrfBackend) -> None:
    """With endless width in space and colours apart, the kernel is the mean over a region: closed form, K = 3."""
    random = torch.Generator().manual_seed(1)
    left = torch.zeros(10, 12, dtype=torch.bool)
    left[:, :5] = True
    image = torch.where(left, 30, 220).to(torch.uint8).expand(3, 10, 12).contiguous()
    probabilities = torch.randn(3, 10, 12, generator=random).softmax(0)
    config = CrfConfig(position_px=1e6, colour=3.0, bilateral_weight=4.0, num_iterations=3)
    q = probabilities
    for _ in range(config.num_iterations):
        means = [q[:, region].mean(1)[:, None, None] * region for region in (left, ~left)]
        q = (probabilities.log() + 4 * (means[0] + means[1])).softmax(0)
    refined = DenseCrf(config, backend=backend).refine(image, probabilities)
    torch.testing.assert_close(refined, q, rtol=0, atol=2e-5)


@pytest.mark.parametrize("num_labels", [2, 3, 5])
@pytest.mark.parametrize("name", list(CRF_PRESETS))
def test_both_backends_agree(name: str, num_labels: int) -> None:
    image, probabilities = disk_scene(num_labels, height=40, width=56)
    compiled, tensor = (
        DenseCrf(crf_preset(name), backend=backend).refine(image, probabilities) for backend in BACKENDS
    )
    torch.testing.assert_close(compiled, tensor, rtol=0, atol=1e-3)
    assert (compiled - tensor).abs().mean() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_have_no_order(backend: CrfBackend) -> None:
    image, probabilities = disk_scene(4)
    order = [2, 0, 3, 1]
    crf = DenseCrf(SMALL, backend=backend)
    torch.testing.assert_close(
        crf.refine(image, probabilities[order]), crf.refine(image, probabilities)[order], rtol=0, atol=2e-6
    )


def test_a_speck_on_a_uniform_image_is_smoothed_away_and_an_edge_keeps_a_region() -> None:
    foreground = torch.full((40, 40), 0.2)
    foreground[18:21, 18:21] = 0.7
    crf = DenseCrf(crf_preset("gwm"))
    flat = torch.full((3, 40, 40), 128, dtype=torch.uint8)
    assert crf.refine_mask(flat, foreground).max() < 0.5
    edged = flat.clone()
    edged[:, 12:28, 12:28] = 40
    foreground[12:28, 12:28] += 0.35  # unsure: 0.55 inside the square, sure in its middle
    assert torch.equal(crf.refine_mask(edged, foreground) > 0.5, edged[0] == 40)


def test_masks_enter_as_the_authors_scripts_have_it() -> None:
    image, probabilities = disk_scene(2)
    mask = probabilities[0] * 0.5
    for name, prepared in (
        ("gwm", mask),
        ("rcf", ((mask * 255).round() / 0.8).clamp(0, 255).floor() / ((mask * 255).round() / 0.8).floor().max()),
    ):
        crf, soft = DenseCrf(crf_preset(name)), prepared.clamp(1e-6, 1 - 1e-6)
        assert torch.equal(crf.refine_mask(image, mask), crf.refine(image, torch.stack([soft, 1 - soft]))[0])
    for value in (0.0, 1.0):
        sure = torch.full_like(mask, value)
        assert torch.equal(DenseCrf(crf_preset("rcf")).refine_mask(image, sure).round(), sure)


def test_frames_may_run_beside_each_other() -> None:
    crf, scenes = DenseCrf(SMALL), [disk_scene(2, seed=seed) for seed in range(4)]
    alone = [crf.refine(*scene) for scene in scenes]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda scene: crf.refine(*scene), scenes))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (5, 1)])
def test_thin_images_work(height: int, width: int) -> None:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    probabilities = torch.rand(2, height, width).softmax(0)
    for backend in BACKENDS:
        refined = DenseCrf(crf_preset("gwm"), backend=backend).refine(image, probabilities)
        assert refined.shape == probabilities.shape
        assert refined.isfinite().all()


def test_without_numba_torch_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    image, probabilities = disk_scene(2)
    tensor = DenseCrf(SMALL, backend="tensor").refine(image, probabilities)
    monkeypatch.setattr(dense_crf, "AVAILABLE", False)
    assert torch.equal(DenseCrf(SMALL).refine(image, probabilities), tensor)
    with pytest.raises(InputError, match="needs numba"):
        DenseCrf(SMALL, backend="compiled")


IMAGE, EVEN = torch.zeros(3, 4, 5, dtype=torch.uint8), torch.full((2, 4, 5), 0.5)


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (IMAGE, torch.ones(1, 4, 5), "of 1 label: expected at least 2"),
        (IMAGE, torch.full((2, 5, 4), 0.5), r"\(2, 5, 4\) for an image of \(3, 4, 5\)|\[2,5,4\]"),
        (IMAGE, torch.full((4, 5), 0.5), r"\(4, 5\) for an image|\[4,5\]"),
        (IMAGE, 2 * EVEN, r"sums up to 1 away from 1"),
        (IMAGE, torch.cat([EVEN + 0.7, EVEN - 0.7]), "from -0.2, with sums"),
        (IMAGE, EVEN.where(torch.arange(5) > 0, math.nan), "hold NaN"),
        (IMAGE.float(), EVEN, "expected uint8 RGB|f32"),
        (IMAGE[:1], EVEN, r"\(1, 4, 5\): expected uint8|\[1,4,5\]"),
        (IMAGE[:, :0], EVEN[:, :0], r"\(3, 0, 5\): expected uint8"),
    ],
)
def test_what_is_no_distribution_over_the_image_is_refused(image: Tensor, probabilities: Tensor, message: str) -> None:
    with pytest.raises((InputError, TypeError), match=message):  # the shape check of the tests is first for shapes
        DenseCrf(SMALL).refine(image, probabilities)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises((InputError, TypeError), match=r"\(4, 4\)|\[4,4\]"):
        DenseCrf(SMALL).refine_mask(IMAGE, torch.zeros(4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_px": 0.0}, "above 0"),
        ({"colour": math.nan}, "above 0"),
        ({"mask_gain": -1.0}, "above 0"),
        ({"mask_gain": 0.0}, "above 0"),
        ({"bilateral_weight": -1.0}, "at least 0"),
        ({"bilateral_weight": 0.0, "smoothness_weight": 0.0}, "not both 0"),
        ({"num_iterations": 0}, "at least 1 iteration"),
        ({"least_probability": 0.5}, r"in \(0, 0.5\)"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)


def test_unknown_names_and_a_lattice_too_fine_are_refused() -> None:
    with pytest.raises(InputError, match=r"'grabcut'.*gwm, rcf"):
        crf_preset("grabcut")
    with pytest.raises((InputError, TypeError), match=r"'cuda'"):  # the type check of the tests is first
        DenseCrf(SMALL, backend="cuda")  # type: ignore[arg-type]
    for fine in (replace(SMALL, position_px=1e-7), replace(SMALL, smoothness_px=1e-7)):
        with pytest.raises(InputError, match="use larger standard deviations"):
            DenseCrf(fine).refine(IMAGE, EVEN)
