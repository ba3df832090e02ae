"""Estimators by name, and weights from files, pinned URIs and torchvision."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
import torch
from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

from model.errors import InputError, WeightsError
from model.weights import sha256_of
from tasks.flow_weights import fetch_torchvision_file, find_weights
from tasks.optical_flow import ESTIMATORS, build_estimator
from tests.shared import GOLDEN, shared_or_skip


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of a folder, on loopback."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_the_name_asked_for_is_the_name_recorded(name: str, tmp_path: Path) -> None:
    if name.startswith("dis"):
        estimator = build_estimator(name)
        assert estimator.weights_sha256 is None
    else:
        variant = name.removesuffix("-20").replace("-", "_")
        weights = shared_or_skip(GOLDEN / f"{variant}_princeton_random.pth")
        estimator = build_estimator(name, str(weights), cache_dir=tmp_path)
        assert estimator.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert estimator.name == name


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
    with pytest.raises(WeightsError, match=r"no weights 'raft-things\.pth' for raft-large.*C_T_V1"):
        build_estimator("raft-large", "raft-things.pth", cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="does not fit RAFT"):
        build_estimator("raft-large", str(small_weights), cache_dir=tmp_path)


def test_a_uri_is_fetched_once_and_only_with_its_hash(small_weights: Path, tmp_path: Path) -> None:
    uri, digest = f"memory://{uuid4().hex}/small.pth", sha256_of(small_weights)
    with pytest.raises(WeightsError, match="no pinned SHA-256"):
        find_weights("raft-small", uri, None, tmp_path)
    with fsspec.open(uri, "wb") as target:
        target.write(small_weights.read_bytes())
    assert build_estimator("raft-small", uri, digest, cache_dir=tmp_path).weights_sha256 == digest
    fsspec.filesystem("memory").rm(uri)
    assert build_estimator("raft-small", uri, digest, cache_dir=tmp_path).weights_sha256 == digest
    with pytest.raises(WeightsError, match="can not fetch weights from memory://"):
        find_weights("raft-small", uri, "1" * 64, tmp_path)


def test_fetched_bytes_with_another_hash_are_not_kept(small_weights: Path, tmp_path: Path) -> None:
    uri = f"memory://{uuid4().hex}/small.pth"
    with fsspec.open(uri, "wb") as target:
        target.write(small_weights.read_bytes())
    with pytest.raises(WeightsError, match="altered or is another one"):
        find_weights("raft-small", uri, "0" * 64, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_can_not_be_made_is_told(small_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    uri = f"memory://{uuid4().hex}/small.pth"
    with fsspec.open(uri, "wb") as target:
        target.write(small_weights.read_bytes())
    with pytest.raises(WeightsError, match=r"can not fetch weights from memory://.*(NotADirectory|FileExists)Error"):
        find_weights("raft-small", uri, sha256_of(small_weights), tmp_path / "file")
    with pytest.raises(WeightsError, match="can not download"):
        fetch_torchvision_file("http://127.0.0.1:9/w-00000000.pth", tmp_path / "file/below")


def test_an_unknown_kind_of_uri_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="can not fetch weights from nowhere://"):
        find_weights("raft-small", "nowhere://bucket/small.pth", "0" * 64, tmp_path)


def test_torchvision_names_are_downloaded_once(server: tuple[str, Path], small_weights: Path, tmp_path: Path) -> None:
    address, served = server
    name = f"raft_small_X-{sha256_of(small_weights)[:8]}.pth"
    shutil.copy(small_weights, served / name)
    path = fetch_torchvision_file(f"{address}/{name}", tmp_path / "cache")
    assert sha256_of(path) == sha256_of(small_weights)
    (served / name).unlink()
    assert fetch_torchvision_file(f"{address}/{name}", tmp_path / "cache") == path


def test_a_download_that_fails_says_where_to_put_the_file(
    server: tuple[str, Path], small_weights: Path, tmp_path: Path
) -> None:
    address, served = server
    cache = tmp_path / "cache"
    shutil.copy(small_weights, served / "raft_small_X-00000000.pth")
    for name in ("raft_small_X-00000000.pth", "missing-00000000.pth"):  # wrong hash, not found
        with pytest.raises(WeightsError, match=f"put it at {cache / name}"):
            fetch_torchvision_file(f"{address}/{name}", cache)
    with pytest.raises(WeightsError, match="put it at"):  # nothing listens on the discard port
        fetch_torchvision_file("http://127.0.0.1:9/raft_small_X-00000000.pth", cache)
    assert list(cache.iterdir()) == []


def test_torchvision_files_put_into_the_cache_by_hand_are_used(small_weights: Path, tmp_path: Path) -> None:
    shutil.copy(small_weights, tmp_path / Path(Raft_Small_Weights.C_T_V1.url).name)
    for weights in (None, "C_T_V1"):
        estimator = build_estimator("raft-small", weights, cache_dir=tmp_path)
        assert estimator.weights_sha256 == sha256_of(small_weights)


def test_the_cache_is_the_settings_folder_unless_given(
    small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GWM_WEIGHTS_DIR", str(tmp_path))
    shutil.copy(small_weights, tmp_path / Path(Raft_Small_Weights.C_T_V1.url).name)
    assert find_weights("raft-small", "C_T_V1").parent == tmp_path
