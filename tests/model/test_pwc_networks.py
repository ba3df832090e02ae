"""PWC-lite, AMD's segment flow and PWC-Net against second implementations and the authors' recorded numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import InputError, WeightsError
from model.networks.pwc_checkpoints import convert_arflow_checkpoint, convert_pwc_checkpoint
from model.networks.pwc_lite import PwcLite
from model.networks.pwc_net import PwcNet, warp_inside
from model.networks.segment_flow import SegmentFlow
from model.weights import fit_state_dict
from tests.model import reference_pwc as reference
from tests.shared import GOLDEN, shared_or_skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small images gain nothing from a second thread, and lose much to waiting for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(height: int = 128, width: int = 192) -> tuple[Tensor, Tensor]:
    """A smooth random image and the same two pixels further right, so that there is motion to follow."""
    noise = torch.rand(1, 3, height // 4, width // 4 + 1, generator=torch.Generator().manual_seed(0))
    wide = F.interpolate(noise, (height, width + 4), mode="bilinear", align_corners=False)
    return wide[..., 2 : width + 2], wide[..., :width]


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts_are_the_published_ones() -> None:
    assert num_parameters(SegmentFlow()) == 1_721_714  # AMD's released code
    assert round(num_parameters(PwcLite()) / 1e6, 2) == 2.24  # ARFlow's paper
    network = PwcNet()
    # PWC-Net's paper has two convolutions per level and 8.75 million parameters; the released network has three
    third = sum(num_parameters(level[-1]) for level in network.pyramid.levels)
    assert round((num_parameters(network) - third) / 1e6, 2) == 8.75


@pytest.mark.parametrize(
    "names", [reference.nvlabs_names(), reference.sniklaus_names("module")], ids=["NVlabs", "sniklaus"]
)
@torch.no_grad()
def test_pwc_net_equals_a_second_implementation_on_each_ports_weights(names: dict[str, Callable[..., str]]) -> None:
    state = reference.random_pwc_net(names)
    network = PwcNet()
    fit_state_dict(network, convert_pwc_checkpoint(state), "random weights")
    first, second = images()
    flow = network(network.encode(first), network.encode(second))
    expected = reference.pwc_net(state, names, first, second)
    assert expected.abs().max() > 2  # pixels, so that warping matters
    assert (flow - expected).abs().max() <= 1e-4


@torch.no_grad()
def test_arflow_equals_a_second_implementation() -> None:
    state = reference.random_arflow()
    network = PwcLite()
    fit_state_dict(network, convert_arflow_checkpoint(state), "random weights")
    first, second = images()
    flows = network(network.encode(first), network.encode(second))
    expected = reference.arflow(state, first, second)
    assert expected.abs().max() > 1
    assert (flows[-1] - expected).abs().max() <= 1e-4
    assert [flow.shape[-1] for flow in flows] == [3, 6, 12, 24, 48]


def test_a_layer_that_is_never_read_may_be_there_and_others_may_not() -> None:
    names = reference.nvlabs_names()
    state = reference.random_pwc_net(names)
    unread = {"deconv2.weight": torch.zeros(2, 2, 4, 4), "deconv2.bias": torch.zeros(2)}  # as in the released file
    converted = convert_pwc_checkpoint(state | unread)
    assert {name: tensor.shape for name, tensor in converted.items()} == {
        name: tensor.shape for name, tensor in PwcNet().state_dict().items()
    }
    two_per_level = {name: tensor for name, tensor in state.items() if "aa." not in name}  # NVlabs' first version
    for other in (two_per_level, state | {"conv7a.0.weight": torch.zeros(1)}, reference.random_arflow()):
        with pytest.raises(WeightsError, match="does not fit PwcNet"):
            fit_state_dict(PwcNet(), convert_pwc_checkpoint(other), "other")


def test_our_own_names_and_those_of_data_parallel_pass() -> None:
    ours = PwcLite().state_dict()
    assert convert_arflow_checkpoint(ours).keys() == ours.keys()
    pwc_net = PwcNet().state_dict()
    newer_names = reference.random_pwc_net(reference.sniklaus_names("net"))
    assert convert_pwc_checkpoint(pwc_net).keys() == convert_pwc_checkpoint(newer_names).keys() == pwc_net.keys()
    arflow = reference.random_arflow()
    wrapped = {f"module.{name}": tensor for name, tensor in arflow.items()}
    assert convert_arflow_checkpoint(wrapped).keys() == convert_arflow_checkpoint(arflow).keys() == ours.keys()


@pytest.mark.parametrize(("height", "width"), [(64, 100), (100, 64), (0, 64)])
def test_sides_that_can_not_be_halved_six_times_are_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=rf"images of {height}x{width} .* multiples of 64"):
        PwcLite().encode(torch.zeros(1, 3, height, width))


def test_warped_features_are_whole_or_absent() -> None:
    features = torch.ones(1, 2, 4, 6)
    right = torch.zeros(1, 2, 4, 6)
    right[:, 0] = 1.5
    assert warp_inside(features, right)[0, 0, 2].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def recorded_segment_flow() -> tuple[SegmentFlow, dict[str, Tensor]]:
    with np.load(shared_or_skip(GOLDEN / "amd_segment_flow.npz")) as arrays:
        recorded = {name: torch.from_numpy(arrays[name]) for name in arrays}
    state = {name.removeprefix("state."): tensor for name, tensor in recorded.items() if name.startswith("state.")}
    network = SegmentFlow()
    fit_state_dict(network, convert_arflow_checkpoint(state), "AMD's motion network")
    return network, recorded


def test_segment_flow_matches_the_authors_code() -> None:
    network, recorded = recorded_segment_flow()
    with torch.no_grad():
        forward, backward = network(*recorded["images"].split(3, dim=1), recorded["masks1"], recorded["masks2"])
    for level in range(5):
        assert (forward[level] - recorded[f"flow_forward{level}"]).abs().max() <= 1e-4
        assert (backward[level] - recorded[f"flow_backward{level}"]).abs().max() <= 1e-4


@torch.no_grad()
def test_hard_segments_move_as_one_and_an_empty_one_is_harmless() -> None:
    torch.manual_seed(0)
    network = SegmentFlow()
    masks = torch.zeros(1, 3, 32, 48)
    masks[:, 0, :, :24], masks[:, 1, :, 24:] = 1, 1  # the third segment is empty
    first, second = images()
    finest = network(first, second, masks, masks)[0][0][0]
    assert finest.isfinite().all()
    left, right = finest[:, :, :88].flatten(1), finest[:, :, -88:].flatten(1)  # away from the interpolated border
    assert left.std(1).max() < 1e-6
    assert right.std(1).max() < 1e-6
    assert (left.mean(1) - right.mean(1)).abs().max() > 1e-4


def test_every_parameter_of_the_trained_network_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = SegmentFlow()
    masks = torch.rand(1, 5, 16, 24).softmax(1).requires_grad_()
    forward, backward = network(*images(), masks, masks)
    loss = sum((flow**2).sum() for flow in (*forward, *backward))
    assert isinstance(loss, Tensor)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    assert masks.grad is not None
    assert masks.grad.abs().sum() > 0
