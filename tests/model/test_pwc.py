"""The estimators around PWC-Net and ARFlow: sizes, units, channel order, checkpoint files and refusals."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.optical_flow import raft_small

from model.errors import InputError, WeightsError
from model.optical_flow import OpticalFlowEstimator, clip_flows
from model.pwc import ARFLOW_SIZE, ArflowEstimator, EncodedFrame, PwcNetEstimator
from model.weights import save_state_dict, sha256_of
from tests.model import reference_pwc as reference

NAMES = reference.nvlabs_names()
SMALL = (64, 128)  # instead of 384x640


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small images gain nothing from a second thread, and lose much to waiting for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pwc_state() -> reference.State:
    return reference.random_pwc_net(NAMES)


@pytest.fixture(scope="module")
def pwc(pwc_state: reference.State) -> PwcNetEstimator:
    return PwcNetEstimator(pwc_state)


@pytest.fixture(scope="module")
def arflow() -> ArflowEstimator:
    return ArflowEstimator(reference.random_arflow(), size=SMALL)


@pytest.fixture(params=["pwc", "arflow"])
def estimator(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def frames(num_frames: int, height: int, width: int) -> list[Tensor]:
    """A smooth coloured scene that moves by three pixels a frame."""
    noise = torch.rand(1, 3, height // 4 + 1, width // 4 + 8, generator=torch.Generator().manual_seed(1))
    scene = 255 * F.interpolate(noise, (height, width + 3 * num_frames), mode="bilinear", align_corners=False)[0]
    return [scene[..., 3 * t : 3 * t + width].to(torch.uint8) for t in range(num_frames)]


def flow_between(estimator: OpticalFlowEstimator, first: Tensor, second: Tensor) -> Tensor:
    return estimator.flow([(estimator.encode(first), estimator.encode(second))])[0]


@pytest.mark.parametrize(("height", "width"), [(64, 128), (50, 101), (70, 65)])
@torch.no_grad()
def test_pwc_is_the_ports_script(pwc: PwcNetEstimator, pwc_state: reference.State, height: int, width: int) -> None:
    """BGR in 0..1, enlarged to multiples of 64, and the flow brought back, each axis by its own factor."""
    pair = frames(2, height, width)
    rows, columns = 64 * ((height + 63) // 64), 64 * ((width + 63) // 64)
    first, second = (
        F.interpolate(frame[[2, 1, 0]][None] / 255, (rows, columns), mode="bilinear", align_corners=False)
        for frame in pair
    )
    coarse = reference.pwc_net(pwc_state, NAMES, first, second)
    expected = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
    expected[0] *= width / columns
    expected[1] *= height / rows
    assert expected.abs().max() > 1
    assert (flow_between(pwc, *pair) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize(("height", "width"), [(64, 128), (50, 101), (33, 40)])
@torch.no_grad()
def test_arflow_is_the_authors_script(arflow: ArflowEstimator, height: int, width: int) -> None:
    """RGB in 0..1 at the network's size, whatever the frame's; corners stay where they are on the way back."""
    pair = frames(2, height, width)
    first, second = (
        F.interpolate(frame[None] / 255, SMALL, mode="bilinear", align_corners=False, antialias=True) for frame in pair
    )
    coarse = reference.arflow(reference.random_arflow(), first, second)
    full = F.interpolate(4 * coarse, SMALL, mode="bilinear", align_corners=True)
    expected = F.interpolate(full, (height, width), mode="bilinear", align_corners=True)[0]
    expected[0] *= width / SMALL[1]
    expected[1] *= height / SMALL[0]
    assert expected.abs().max() > 1
    assert (flow_between(arflow, *pair) - expected).abs().max() <= 1e-4


def test_a_frame_keeps_its_average_when_arflow_shrinks_it(arflow: ArflowEstimator) -> None:
    stripes = torch.zeros(3, 320, 640, dtype=torch.uint8)
    stripes[..., ::5] = 255  # one column in five, as five columns become one
    gray = torch.full_like(stripes, 51)
    levels, expected = arflow.encode(stripes).levels, arflow.encode(gray).levels
    for level, flat in zip(levels, expected, strict=True):
        assert (level - flat).abs().max() <= 0.1 * flat.abs().max()


def test_a_vector_is_scaled_by_its_own_axis(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that says (4, 8) everywhere: in pixels of its input for PWC-Net, of a quarter of it for ARFlow."""

    class Says:
        def __init__(self, encode: Any) -> None:
            self.encode = encode

        def __call__(self, first: Any, second: Any) -> Any:
            said = torch.tensor([4.0, 8.0])[None, :, None, None].expand(1, 2, 16, 32)
            return said if isinstance(estimator, PwcNetEstimator) else [said / 4]

    monkeypatch.setattr(estimator, "_network", Says(estimator._network.encode))
    flow = flow_between(estimator, *frames(2, 48, 96))  # the network sees 64x128 in both cases
    assert flow.shape == (2, 48, 96)
    torch.testing.assert_close(flow[0], torch.full((48, 96), 3.0))
    torch.testing.assert_close(flow[1], torch.full((48, 96), 6.0))


def test_each_frame_is_encoded_once_for_all_gaps(estimator: Any) -> None:
    calls: list[int] = []
    pyramid = next(module for name, module in estimator._network.named_modules() if name.endswith("pyramid"))
    hook = pyramid.register_forward_hook(lambda *_: calls.append(1))
    rows = list(clip_flows(estimator, frames(3, 64, 64), (1, -1, 2, -2)))
    hook.remove()
    assert sum(flow is not None for row in rows for flow in row.values()) == 6
    assert len(calls) == 3


def test_pairs_in_one_call_are_those_of_single_calls(estimator: Any) -> None:
    assert isinstance(estimator, OpticalFlowEstimator)
    encoded = [estimator.encode(frame) for frame in frames(3, 60, 90)]
    together = estimator.flow([(encoded[0], encoded[1]), (encoded[2], encoded[0])])
    assert together.shape == (2, 2, 60, 90)
    assert torch.equal(together[1], estimator.flow([(encoded[2], encoded[0])])[0])
    assert not torch.equal(together[0], together[1])


def test_unusable_pairs_are_refused(estimator: Any) -> None:
    encoded = [estimator.encode(frame) for frame in (*frames(1, 60, 90), *frames(1, 60, 91))]
    with pytest.raises(InputError, match=r"\(60, 90\) and \(60, 91\): expected frames of one size"):
        estimator.flow([(encoded[0], encoded[1])])
    with pytest.raises(InputError, match=r"EncodedFrame, NoneType: expected results of encode\(\)"):
        estimator.flow([(encoded[0], None)])


def test_arflow_says_its_size_and_refuses_others() -> None:
    state = reference.random_arflow()
    assert ArflowEstimator(state).name == "arflow"
    assert ArflowEstimator(state).size == ARFLOW_SIZE == (384, 640)
    assert ArflowEstimator(state, size=(448, 1024)).name == "arflow-448x1024"
    for size in ((384, 641), (0, 64), (-64, 64)):
        with pytest.raises(InputError, match="multiples of 64"):
            ArflowEstimator(state, size=size)


def pwc_file(path: Path) -> type[PwcNetEstimator]:
    torch.save(reference.random_pwc_net(reference.sniklaus_names("module")), path)
    return PwcNetEstimator


def arflow_file(path: Path) -> type[ArflowEstimator]:
    torch.save({"epoch": 12, "state_dict": reference.random_arflow()}, path)
    return ArflowEstimator


def as_python_2(saved: bytes) -> bytes:
    """A file of ``torch.save`` in its old format, with the byte strings that Python 2 pickled for names."""
    source, rewritten = io.BytesIO(saved), b""
    for _ in range(5):  # magic number, version, system, content, keys of what follows: one pickle each
        steps = [(code.name, value, at) for code, value, at in pickletools.genops(source)]
        ends = [at for _, _, at in steps[1:]] + [source.tell()]
        for (code, value, at), end in zip(steps, ends, strict=True):
            if code == "BINUNICODE":
                rewritten += pickle.SHORT_BINSTRING + bytes([len(value)]) + value.encode()
            else:
                rewritten += saved[at:end]
    return rewritten + source.read()


def test_files_of_the_authors_are_read(pwc: PwcNetEstimator, pwc_state: reference.State, tmp_path: Path) -> None:
    state = pwc_state | {"deconv2.weight": torch.zeros(2, 2, 4, 4), "deconv2.bias": torch.zeros(2)}
    pair = frames(2, 64, 64)
    expected = flow_between(pwc, *pair)
    torch.save({"state_dict": state}, saved := io.BytesIO(), _use_new_zipfile_serialization=False)
    (tmp_path / "pwc_net.pth.tar").write_bytes(as_python_2(saved.getvalue()))  # NVlabs: Python 2.7, PyTorch 0.2
    pwc_file(tmp_path / "network-default.pytorch")
    save_state_dict(pwc._network.state_dict(), tmp_path / "ours.safetensors")
    for path in tmp_path.iterdir():
        read = PwcNetEstimator.from_file(path, sha256=sha256_of(path))
        assert read.weights_sha256 == sha256_of(path)
        assert torch.equal(flow_between(read, *pair), expected), path.name


def test_arflow_files_are_wrapped_with_an_epoch(arflow: ArflowEstimator, tmp_path: Path) -> None:
    path = tmp_path / "pwclite_ar.tar"
    arflow_file(path)
    read = ArflowEstimator.from_file(path, size=SMALL)
    pair = frames(2, 64, 64)
    assert torch.equal(flow_between(read, *pair), flow_between(arflow, *pair))
    assert isinstance(read.encode(pair[0]), EncodedFrame)


@pytest.mark.parametrize("make", [pwc_file, arflow_file])
def test_wrong_files_are_refused(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    kind = make(path)
    with pytest.raises(WeightsError, match="altered or is another one"):
        kind.from_file(path, sha256="0" * 64)
    with pytest.raises(WeightsError, match="no weights file"):
        kind.from_file(tmp_path / "absent.pth")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="can not be read as weights"):
        kind.from_file(path)
    torch.save(raft_small(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match=r"weights\.pth does not fit Pwc"):
        kind.from_file(path)


def test_arflow_for_three_frames_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"\(128, 198, 3, 3\), expected \(128, 115, 3, 3\)"):
        ArflowEstimator(reference.random_arflow(num_frames=3))
