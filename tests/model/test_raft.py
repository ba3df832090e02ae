"""RAFT against torchvision's own forward pass and the authors' recorded flow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import InputError, WeightsError
from model.optical_flow import clip_flows
from model.raft import VARIANTS, RaftEstimator, crop_padding, padding_to_multiple
from model.raft_checkpoints import convert_princeton_checkpoint, is_princeton_checkpoint
from model.weights import load_state_dict
from tests.shared import GOLDEN, shared_or_skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small images gain nothing from a second thread, and lose much to waiting for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(variant: str) -> torch.nn.Module:
    torch.manual_seed(0)
    built: torch.nn.Module = VARIANTS[variant](weights=None)
    return built.eval()


def frames(num_frames: int, height: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(num_frames)
    ]


@torch.no_grad()
def torchvision_flow(network: torch.nn.Module, first: Tensor, second: Tensor, num_updates: int) -> Tensor:
    images = [2 * (frame[None].float() / 255) - 1 for frame in (first, second)]
    last: Tensor = network(*images, num_flow_updates=num_updates)[-1]
    return last[0]


def test_equals_torchvision_forward(variant: str, network: torch.nn.Module) -> None:
    first, second = frames(2, 128, 136)
    estimator = RaftEstimator(variant, network.state_dict(), num_updates=3)
    flow = estimator.flow([(estimator.encode(first), estimator.encode(second))])[0]
    expected = torchvision_flow(network, first, second, 3)
    assert (flow - expected).abs().max() <= 1e-4


def test_padding_is_centred_replicate_and_undone(variant: str, network: torch.nn.Module) -> None:
    first, second = frames(2, 131, 142)
    estimator = RaftEstimator(variant, network.state_dict(), num_updates=2)
    flow = estimator.flow([(estimator.encode(first), estimator.encode(second))])[0]
    # 131 -> 136: 2 above, 3 below; 142 -> 144: 1 left, 1 right
    padded = [F.pad(frame[None].float(), (1, 1, 2, 3), mode="replicate")[0] for frame in (first, second)]
    expected = torchvision_flow(network, padded[0], padded[1], 2)[:, 2:-3, 1:-1]
    assert flow.shape == (2, 131, 142)
    assert (flow - expected).abs().max() <= 1e-4


@given(height=st.integers(1, 70), width=st.integers(1, 70), multiple=st.integers(1, 16))
@settings(deadline=None)
def test_padding_round_trip(height: int, width: int, multiple: int) -> None:
    image = torch.arange(float(height * width)).reshape(1, 1, height, width)
    padding = padding_to_multiple(height, width, multiple)
    padded = F.pad(image, padding, mode="replicate")
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert max(padded.shape[-2] - height, padded.shape[-1] - width) < multiple
    assert torch.equal(crop_padding(padded, padding), image)


def test_encoders_run_once_per_frame_for_all_gaps(network: torch.nn.Module, variant: str) -> None:
    estimator = RaftEstimator(variant, network.state_dict(), num_updates=1)
    calls: list[str] = []
    for name in ("feature_encoder", "context_encoder"):
        module = getattr(estimator._network, name)
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    rows = list(clip_flows(estimator, frames(3, 128, 128), (1, -1, 2, -2)))
    assert sum(flow is not None for row in rows for flow in row.values()) == 6
    assert sorted(calls) == ["context_encoder"] * 3 + ["feature_encoder"] * 3


def test_checkpoints_of_the_authors_fill_torchvision_exactly(variant: str, network: torch.nn.Module) -> None:
    name = variant.replace("-", "_")
    state = load_state_dict(shared_or_skip(GOLDEN / f"{name}_princeton_random.pth"))
    assert is_princeton_checkpoint(state)
    converted = convert_princeton_checkpoint(state)
    assert not is_princeton_checkpoint(converted)
    expected = {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert {key: tensor.shape for key, tensor in converted.items()} == expected
    bare = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    assert set(convert_princeton_checkpoint(bare)) == set(converted)


def test_matches_the_flow_that_the_authors_code_gave(variant: str) -> None:
    name = variant.replace("-", "_")
    with np.load(shared_or_skip(GOLDEN / f"{name}.npz")) as arrays:
        recorded = {key: torch.from_numpy(arrays[key]) for key in ("image1", "image2", "flow")}
        num_updates = int(arrays["iters"])
    estimator = RaftEstimator.from_file(variant, GOLDEN / f"{name}_princeton_random.pth", num_updates=num_updates)
    pair = estimator.encode(recorded["image1"][0]), estimator.encode(recorded["image2"][0])
    assert (estimator.flow([pair]) - recorded["flow"]).abs().max() <= 1e-4
    assert len(estimator.weights_sha256 or "") == 64


@pytest.mark.parametrize(("height", "width"), [(120, 200), (200, 120), (8, 8)])
def test_small_frames_are_refused_with_the_geometry(
    variant: str, network: torch.nn.Module, height: int, width: int
) -> None:
    estimator = RaftEstimator(variant, network.state_dict(), num_updates=1)
    with pytest.raises(InputError, match=rf"frame of {height}x{width} .* at least 121 px"):
        estimator.encode(torch.zeros(3, height, width, dtype=torch.uint8))
    smallest = estimator.encode(torch.zeros(3, 121, 121, dtype=torch.uint8))
    assert estimator.flow([(smallest, smallest)]).isfinite().all()


def test_unusable_pairs_are_refused(variant: str, network: torch.nn.Module) -> None:
    estimator = RaftEstimator(variant, network.state_dict(), num_updates=1)
    encoded = [estimator.encode(torch.zeros(3, 128, width, dtype=torch.uint8)) for width in (128, 136)]
    with pytest.raises(InputError, match="expected frames of one size"):
        estimator.flow([(encoded[0], encoded[1])])
    with pytest.raises(InputError, match=r"expected results of encode\(\)"):
        estimator.flow([(encoded[0], None)])


def test_unusable_settings_and_weights_are_refused(variant: str, network: torch.nn.Module) -> None:
    state = network.state_dict()
    with pytest.raises(InputError, match="expected one of raft-large, raft-small"):
        RaftEstimator("raft-medium", state)
    with pytest.raises(InputError, match="num_updates=0"):
        RaftEstimator(variant, state, num_updates=0)
    other = next(name for name in VARIANTS if name != variant)
    with pytest.raises(WeightsError, match=r"my\.pth does not fit RAFT: \w+_encoder\."):
        RaftEstimator(other, state, source="my.pth")


def test_the_name_tells_the_number_of_updates(variant: str, network: torch.nn.Module) -> None:
    assert RaftEstimator(variant, network.state_dict()).name == variant
    assert RaftEstimator(variant, network.state_dict(), num_updates=20).name == f"{variant}-20"
    assert RaftEstimator(variant, network.state_dict(), num_updates=20, bf16=True).name == f"{variant}-20-bf16"
