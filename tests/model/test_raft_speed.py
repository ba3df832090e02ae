"""What makes RAFT fast changes no number: batches, memory that is kept, half the precision, GPUs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow
from torchvision.models.optical_flow.raft import CorrBlock

from model.raft import VARIANTS, EncodedFrame, RaftEstimator
from model.raft_correlation import CorrelationPyramid, pooled_features, volume_bytes
from model.raft_network import _InstanceNorm, upsample
from tests.devices import gpu_or_skip
from tests.model.test_raft import frames, torchvision_flow


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(variant: str) -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = VARIANTS[variant](weights=None)
    return built.eval()


def chain(encoded: list[EncodedFrame]) -> list[tuple[object, object]]:
    """Pairs forwards and backwards, as the gaps (1, -1) have them."""
    ahead: list[tuple[object, object]] = list(pairwise(encoded))
    return [*ahead, *((second, first) for first, second in ahead)]


def test_a_batch_is_what_its_pairs_are(variant: str, network: nn.Module) -> None:
    clip = frames(3, 128, 136)
    alone = RaftEstimator(variant, network.state_dict(), num_updates=2)
    size = volume_bytes(alone.encode(clip[0]).features)
    together = RaftEstimator(variant, network.state_dict(), num_updates=2, batch_bytes=3 * size)  # 3 pairs, then 1
    expected = alone.flow(chain([alone.encode(frame) for frame in clip]))
    flow = together.flow(chain([together.encode(frame) for frame in clip]))
    assert flow.shape == (4, 2, 128, 136)
    assert (flow - expected).abs().max() <= 1e-4


def test_memory_that_is_kept_does_not_leak_into_the_next_pair() -> None:
    network = VARIANTS["raft-small"](weights=None).eval()
    estimator = RaftEstimator("raft-small", network.state_dict(), num_updates=2)
    for height, width in ((128, 136), (136, 128), (128, 136), (128, 136)):
        first, second = (torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(2))
        flow = estimator.flow([(estimator.encode(first), estimator.encode(second))])[0]
        assert (flow - torchvision_flow(network, first, second, 2)).abs().max() <= 1e-4


def test_threads_that_share_an_estimator_take_turns() -> None:
    estimator = RaftEstimator("raft-small", VARIANTS["raft-small"](weights=None).state_dict(), num_updates=2)
    pairs = chain([estimator.encode(frame) for frame in frames(4, 128, 128)])
    expected = [estimator.flow([pair]) for pair in pairs]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda pair: estimator.flow([pair]), pairs))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_bf16_is_near_float32_and_not_equal(variant: str, network: nn.Module) -> None:
    first, second = frames(2, 128, 136)
    flows = []
    for bf16 in (False, True):
        estimator = RaftEstimator(variant, network.state_dict(), num_updates=3, bf16=bf16)
        flows.append(estimator.flow([(estimator.encode(first), estimator.encode(second))]))
    assert flows[1].dtype == torch.float32
    difference = (flows[1] - flows[0]).norm(dim=1).mean()
    # bf16 has 8 bits: what is lost is a few per cent of the motion, not most of it
    assert 1e-4 < difference < 0.1 * flows[0].norm(dim=1).mean()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 23), (31, 16)])
def test_correlation_equals_torchvisions_for_odd_sizes(height: int, width: int) -> None:
    first, second = torch.randn(2, 2, 8, height, width)
    block, ours = CorrBlock(radius=3), CorrelationPyramid(3)
    block.build_pyramid(first, second)
    ours.build(first, pooled_features(second))
    inside_and_outside = make_coords_grid(2, height, width) + 6 * torch.randn(2, 2, height, width)
    expected = block.index_pyramid(inside_and_outside)
    assert (ours.lookup(inside_and_outside).permute(0, 3, 1, 2) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("height", [3, 10, 12, 16])
def test_instance_norm_by_strips_equals_torchs(height: int) -> None:
    x = 3 + torch.randn(2, 5, height, 7).to(memory_format=torch.channels_last)
    normed = _InstanceNorm(nn.InstanceNorm2d(5))(x)
    assert (normed - F.instance_norm(x)).abs().max() <= 1e-5


@pytest.mark.parametrize("channels", [None, 576])
def test_upsampling_equals_torchvisions(channels: int | None) -> None:
    flow = torch.randn(2, 2, 5, 7)
    weights = None if channels is None else torch.randn(2, channels, 5, 7)
    assert (upsample(flow, weights) - upsample_flow(flow, up_mask=weights)).abs().max() <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("bf16", [False, True])
def test_a_gpu_gives_the_flow_of_the_cpu(variant: str, network: nn.Module, bf16: bool) -> None:
    device = gpu_or_skip()
    clip = frames(3, 240, 432)

    def flow_on(place: str) -> Tensor:
        estimator = RaftEstimator(variant, network.state_dict(), bf16=bf16, device=place)
        return estimator.flow(chain([estimator.encode(frame) for frame in clip]))

    difference = (flow_on(device) - flow_on("cpu")).norm(dim=1)
    if bf16:
        assert difference.mean() <= 0.5
    else:
        assert difference.max() <= 1e-2  # sums in another order, over 12 updates
    assert flow_on(device).is_pinned()
