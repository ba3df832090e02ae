"""Feature maps for merging: DINO keys against the released extractor, the others on scenes whose groups are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.errors import InputError, WeightsError
from model.features import FEATURE_NAMES, DinoFeatures, feature_source
from model.merging import merge_segments
from model.networks.dino_vit import DinoKeys
from model.types import Segmentation
from tests.shared import GOLDEN, shared_or_skip


def quarters() -> tuple[Tensor, Tensor, Segmentation]:
    """Four segments, one a quarter of the image; the left two are green and still, the right two red and move."""
    labels = torch.zeros(32, 48, dtype=torch.long)
    labels[16:] += 1
    labels[:, 24:] += 2
    images = torch.zeros(1, 3, 32, 48)
    images[0, 0, :, 24:] = 200
    images[0, 1, :, :24] = 180
    images += 20 * torch.rand(1, 3, 32, 48)
    flow = 0.05 * torch.randn(1, 2, 32, 48)
    flow[:, 0, :, 24:] += 4
    probabilities = F.one_hot(labels, 4).permute(2, 0, 1)[None].float()
    decoder = torch.randn(4, 8)[torch.tensor([0, 0, 1, 1])][labels].permute(2, 0, 1)[None]
    return images, flow, Segmentation(probabilities=probabilities, features=decoder)


@pytest.mark.parametrize("name", [name for name in FEATURE_NAMES if name != "dino"])
def test_features_group_what_belongs_together(name: str) -> None:
    images, flow, segmentation = quarters()
    features = feature_source(name)(images, segmentation, flow)
    assert merge_segments(segmentation.probabilities, features)[0].tolist() == [False, False, True, True]


def golden_keys() -> tuple[DinoKeys, dict[str, np.ndarray]]:
    golden = dict(np.load(shared_or_skip(GOLDEN / "dino_vit_keys.npz"), allow_pickle=False))
    state = {name.removeprefix("state."): torch.from_numpy(v) for name, v in golden.items() if "state." in name}
    return DinoKeys.from_state(state, num_heads=3), golden


def test_dino_keys_equal_the_released_extractor() -> None:
    keys, golden = golden_keys()
    with torch.no_grad():
        maps = keys(torch.from_numpy(golden["image"]), [6, 8, 10, 12])
    for block, features in maps.items():
        np.testing.assert_allclose(features.numpy(), golden[f"keys.block{block}"], rtol=0, atol=1e-4)


def test_dino_features_have_the_stride_of_four() -> None:
    keys, _ = golden_keys()
    images, _, segmentation = quarters()
    features = DinoFeatures(keys)(images, segmentation)
    assert features.shape == (1, 48, 31, 55)  # methods: 128x224 at stride 4
    assert merge_segments(segmentation.probabilities, features).shape == (1, 4)


def test_guards() -> None:
    images, _, segmentation = quarters()
    with pytest.raises(InputError, match=r"'clip'.*decoder, colour, motion, dino"):
        feature_source("clip")
    with pytest.raises(InputError, match="needs its weights"):
        feature_source("dino")
    with pytest.raises(InputError, match="needs optical flow"):
        feature_source("motion")(images, segmentation)
    with pytest.raises(InputError, match="no features of its own"):
        feature_source("decoder")(images, Segmentation(probabilities=segmentation.probabilities))
    with pytest.raises(WeightsError, match="expected a DINO ViT"):
        DinoKeys.from_state({"conv.weight": torch.zeros(1)})
    keys, golden = golden_keys()
    with pytest.raises(InputError, match="from 1 to 12"):
        keys(torch.from_numpy(golden["image"]), [13])
