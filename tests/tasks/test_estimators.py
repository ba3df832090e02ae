"""Estimators by name, with weights from the registry, files and pinned URIs."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
import torch
from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

from model.errors import InputError, WeightsError
from model.optical_flow import clip_flows
from model.weights import sha256_of
from tasks.named_weights import NAMED_WEIGHTS
from tasks.optical_flow import DEFAULT_WEIGHTS, ESTIMATORS, build_estimator
from tests.model.reference_pwc import nvlabs_names, random_arflow, random_pwc_net
from tests.shared import GOLDEN, shared_or_skip


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files in the formats of ARFlow's and PWC-Net's authors."""
    folder = tmp_path_factory.mktemp("random")
    files = {"arflow": folder / "pwclite_ar.tar", "pwc": folder / "pwc_net.pth.tar"}
    torch.save({"epoch": 1, "state_dict": random_arflow()}, files["arflow"])
    torch.save({"state_dict": random_pwc_net(nvlabs_names())}, files["pwc"])
    return files


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if not name.startswith(("arflow", "pwc"))])
def test_the_name_asked_for_is_the_name_recorded(name: str, tmp_path: Path) -> None:
    if name.startswith("dis"):
        estimator = build_estimator(name)
        assert estimator.weights_sha256 is None
    else:
        variant = name.removesuffix("-bf16").removesuffix("-20").replace("-", "_")
        weights = shared_or_skip(GOLDEN / f"{variant}_princeton_random.pth")
        estimator = build_estimator(name, str(weights), cache_dir=tmp_path)
        assert estimator.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert estimator.name == name


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name.startswith(("arflow", "pwc"))])
def test_arflow_and_pwc_run_with_a_file_and_not_without(
    name: str, random_weights: dict[str, Path], tmp_path: Path
) -> None:
    network = name.partition("-")[0]
    estimator = build_estimator(name, str(random_weights[network]), cache_dir=tmp_path)
    assert estimator.name == name
    assert estimator.weights_sha256 == sha256_of(random_weights[network])
    frames = [torch.full((3, 40, 60), value, dtype=torch.uint8) for value in (50, 60)]
    first, _ = clip_flows(estimator, frames, (1,))
    assert first[1] is not None
    assert first[1].shape == (2, 40, 60)
    assert first[1].isfinite().all()
    with pytest.raises(WeightsError, match=rf"'{network}' needs weights.*one of {network}-\w+, {network}-sintel"):
        build_estimator(name, cache_dir=tmp_path)
    other = random_weights["pwc" if network == "arflow" else "arflow"]
    with pytest.raises(WeightsError, match="does not fit Pwc"):
        build_estimator(name, str(other), cache_dir=tmp_path)


def test_unknown_names_and_needless_weights_are_refused() -> None:
    with pytest.raises(InputError, match=r"no optical flow estimator 'raft'.*raft-large"):
        build_estimator("raft")
    with pytest.raises(InputError, match="DIS optical flow takes no weights, got C_T_V2"):
        build_estimator("dis", "C_T_V2")


def test_weights_of_a_local_file_with_its_hash(small_weights: Path, tmp_path: Path) -> None:
    digest = sha256_of(small_weights)
    spaced = tmp_path / "my weights.pth"
    shutil.copy(small_weights, spaced)
    for given in (str(small_weights), spaced.as_uri()):
        assert build_estimator("raft-small", given, digest, cache_dir=tmp_path).weights_sha256 == digest
    with pytest.raises(WeightsError, match="altered"):
        build_estimator("raft-small", str(small_weights), "0" * 64, cache_dir=tmp_path)


def test_weights_that_are_not_there_or_of_another_network(small_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"no weights 'raft-thing\.pth' for raft-large.*raft-large-c-t-v1.*raft-things"
    ):
        build_estimator("raft-large", "raft-thing.pth", cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="raft-things are weights of raft-large for raft-small"):
        build_estimator("raft-small", "raft-things", cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="does not fit RAFT"):
        build_estimator("raft-large", str(small_weights), cache_dir=tmp_path)


def test_a_uri_needs_its_hash(small_weights: Path, tmp_path: Path) -> None:
    uri, digest = f"memory://{uuid4().hex}/small.pth", sha256_of(small_weights)
    with fsspec.open(uri, "wb") as target:
        target.write(small_weights.read_bytes())
    with pytest.raises(WeightsError, match="no pinned SHA-256"):
        build_estimator("raft-small", uri, cache_dir=tmp_path)
    assert build_estimator("raft-small", uri, digest, cache_dir=tmp_path).weights_sha256 == digest


def test_torchvisions_names_and_the_default_are_the_registered_ones(
    small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = DEFAULT_WEIGHTS["raft-small"]
    monkeypatch.setitem(NAMED_WEIGHTS, name, replace(NAMED_WEIGHTS[name], sha256=sha256_of(small_weights)))
    monkeypatch.setenv("GWM_WEIGHTS_DIR", str(tmp_path))
    shutil.copy(small_weights, tmp_path / Path(Raft_Small_Weights.C_T_V1.url).name)  # put there by hand
    for weights in (None, "C_T_V1", name):
        for cache_dir in (None, tmp_path):
            estimator = build_estimator("raft-small", weights, cache_dir=cache_dir)
            assert estimator.weights_sha256 == sha256_of(small_weights)


def test_a_cached_file_with_other_bytes_is_refused(small_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / Path(Raft_Small_Weights.C_T_V1.url).name
    shutil.copy(small_weights, path)
    with pytest.raises(WeightsError, match=r"expected ad48884c \(published\)"):
        build_estimator("raft-small", cache_dir=tmp_path)
