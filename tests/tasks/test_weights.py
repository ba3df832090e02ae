"""Weights by name, file and URI: fetched from a real server once, whole, and never as other bytes than were meant."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
import torch

from model.errors import WeightsError
from model.weights import save_state_dict
from tasks import weights as module
from tasks.named_weights import NAMED_WEIGHTS, NamedWeights
from tasks.weights import cached_file, fetch_weights, imported_path, lock_path, read_lock, write_lock
from tests.tasks.local_server import LocalServer, local_server

DISCARD_PORT = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with local_server() as running:
        yield running


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    save_state_dict({"weight": torch.randn(300)}, tmp_path / "source.safetensors")
    return (tmp_path / "source.safetensors").read_bytes()


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch):
    """Register weights called ``tiny`` at an address."""

    def add(url: str, sha256: str | None = None, network: str = "resnet50") -> NamedWeights:
        entry = replace(NAMED_WEIGHTS["imagenet-resnet50"], url=url, sha256=sha256, network=network)
        monkeypatch.setitem(NAMED_WEIGHTS, "tiny", entry)
        return entry

    return add


def test_a_name_is_downloaded_once_and_checked(server: LocalServer, content: bytes, register, tmp_path: Path) -> None:
    server.files["w.safetensors"] = content
    register(server.url("w.safetensors"), digest_of(content)[:8])
    told: list[tuple[int, int | None]] = []
    first = fetch_weights("tiny", cache=tmp_path / "cache", on_bytes=lambda done, total: told.append((done, total)))
    assert (first.sha256, first.network, first.converter) == (digest_of(content), "resnet50", "resnet")
    assert first.path.read_bytes() == content
    assert told == [(len(content), len(content))]
    assert fetch_weights("tiny", digest_of(content).upper(), cache=tmp_path / "cache") == first
    assert server.asked == ["w.safetensors"]
    assert list((tmp_path / "cache").iterdir()) == [first.path]  # a published hash needs no lock


@pytest.mark.parametrize(
    ("address", "reason"), [(None, "404"), (DISCARD_PORT, "refused|Errno"), ("nowhere://bucket", "no driver")]
)
def test_a_source_that_refuses_says_where_to_put_the_file(
    server: LocalServer, register, tmp_path: Path, address: str | None, reason: str
) -> None:
    url = f"{address or server.address}/w.pth"
    register(url, "0123abcd")
    where = re.escape(f"put it at {tmp_path / 'cache' / 'w.pth'}; its SHA-256 must begin with 0123abcd")
    with pytest.raises(WeightsError, match=f"can not download {re.escape(url)} .*({reason}).*{where}"):
        fetch_weights("tiny", cache=tmp_path / "cache")
    register(url)
    with pytest.raises(WeightsError, match="its SHA-256 is not published, the first file that is used is pinned"):
        fetch_weights("tiny", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_breaks_off_or_is_another_file_leaves_nothing(
    server: LocalServer, content: bytes, register, tmp_path: Path
) -> None:
    server.files["w.safetensors"] = content
    for wrong in ("0" * 8, "0" * 64):
        register(server.url("w.safetensors"), wrong)
        with pytest.raises(WeightsError, match=rf"is not what it should be: .*expected {wrong} \(published\).*put it"):
            fetch_weights("tiny", cache=tmp_path / "cache")
    server.broken_off.add("w.safetensors")
    register(server.url("w.safetensors"))
    with pytest.raises(WeightsError, match=f"the connection ended after {len(content) // 2} of {len(content)} bytes"):
        fetch_weights("tiny", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_without_a_published_hash_is_pinned_by_its_first_use(
    server: LocalServer, content: bytes, register, tmp_path: Path
) -> None:
    server.files["w.safetensors"] = content
    url = server.url("w.safetensors")
    register(url)
    path = fetch_weights("tiny", cache=tmp_path).path
    assert read_lock(path) == {"name": "tiny", "url": url, "sha256": digest_of(content)}
    path.unlink()
    server.files["w.safetensors"] = content + b" "  # published anew
    with pytest.raises(WeightsError, match=rf"expected {digest_of(content)} \(pinned in .*lock\.json\)"):
        fetch_weights("tiny", cache=tmp_path)
    path.write_bytes(content + b" ")
    with pytest.raises(WeightsError, match=r"altered or is another one"):
        fetch_weights("tiny", cache=tmp_path)
    lock_path(path).unlink()
    assert fetch_weights("tiny", cache=tmp_path).sha256 == digest_of(content + b" ")


def test_an_error_page_is_not_pinned(server: LocalServer, register, tmp_path: Path) -> None:
    server.files["w.pth"] = b"<!DOCTYPE html><title>Please log in</title>"
    entry = register(server.url("w.pth"))
    with pytest.raises(
        WeightsError, match=r"the download begins with b'<!DOCTYPE', expected a file of torch or safetensors"
    ):
        fetch_weights("tiny", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "cache" / entry.file_name).write_bytes(server.files["w.pth"])
    with pytest.raises(WeightsError, match="begins with"):
        fetch_weights("tiny", cache=tmp_path / "cache")


def test_a_file_put_there_by_hand_is_used_without_a_network(content: bytes, register, tmp_path: Path) -> None:
    entry = register(f"{DISCARD_PORT}/w.safetensors", digest_of(content)[:8])
    assert cached_file("tiny", tmp_path) == tmp_path / "w.safetensors"
    (tmp_path / entry.file_name).write_bytes(content)
    assert fetch_weights("tiny", cache=tmp_path).sha256 == digest_of(content)
    (tmp_path / entry.file_name).write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=r"\(published\): the file was altered"):
        fetch_weights("tiny", cache=tmp_path)


def test_weights_of_another_network_are_refused_before_any_download(server: LocalServer, register) -> None:
    register(server.url("w.pth"), network="swin-tiny")
    with pytest.raises(
        WeightsError, match="tiny are weights of swin-tiny for raft-small: expected one of raft-small-c"
    ):
        fetch_weights("tiny", networks=("raft-small",))
    assert server.asked == []


def test_a_lock_that_is_damaged_is_told(content: bytes, register, tmp_path: Path) -> None:
    entry = register(f"{DISCARD_PORT}/w.safetensors")
    path = tmp_path / entry.file_name
    path.write_bytes(content)
    for damage in ("{", "[1]", '{"sha256": "abc"}', '{"name": "tiny"}'):
        lock_path(path).write_text(damage)
        with pytest.raises(WeightsError, match="remove it to pin the file anew"):
            fetch_weights("tiny", cache=tmp_path)


def test_a_folder_that_may_only_be_read_still_serves(
    content: bytes, register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entry = register(f"{DISCARD_PORT}/w.safetensors")
    (tmp_path / entry.file_name).write_bytes(content)

    def refuse(path: Path, _: bytes) -> None:
        raise WeightsError(f"can not write {path}")  # chmod does not stop root, who runs tests too

    monkeypatch.setattr(module, "publish", refuse)
    assert fetch_weights("tiny", cache=tmp_path).sha256 == digest_of(content)
    assert "used without being pinned" in caplog.text


# Files and URIs.


def test_local_files_are_used_where_they_are(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my weights.safetensors"
    path.write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (str(path), path.as_uri(), f"~/{path.name}"):
        assert fetch_weights(given, digest_of(content)).path == path
        assert fetch_weights(given).sha256 == digest_of(content)
    with pytest.raises(WeightsError, match=r"\(asked for\): the file was altered"):
        fetch_weights(str(path), "0" * 64)


@pytest.mark.parametrize("reference", ["dino-vit-x8", "no/such.pth", "~nobody-of-that-name/w.pth", "x" * 300, ""])
def test_references_that_lead_nowhere_list_the_names(reference: str) -> None:
    with pytest.raises(
        WeightsError, match=r"no weights .*(expected a file, a URI .*raft-large-c-t-v1|expected a path)"
    ):
        fetch_weights(reference)


@pytest.mark.parametrize("sha256", ["abc", "g" * 64, "0" * 63])
def test_a_hash_that_is_none_is_refused(sha256: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expected 64 hex digits"):
        fetch_weights("raft-things", sha256, cache=tmp_path)


@pytest.mark.parametrize("scheme", ["http", "memory"])
def test_a_uri_is_fetched_once_and_only_with_its_hash(
    server: LocalServer, content: bytes, tmp_path: Path, scheme: str
) -> None:
    uri = server.url("w.pth") if scheme == "http" else f"memory://{uuid4().hex}/w.pth"
    server.files["w.pth"] = content
    with pytest.raises(WeightsError, match="no pinned SHA-256"):
        fetch_weights(uri, cache=tmp_path / "cache")
    if scheme == "memory":
        with fsspec.open(uri, "wb") as target:
            target.write(content)
    with pytest.raises(WeightsError, match=r"is not what it should be: .*altered or is another one.*must be 00000000"):
        fetch_weights(uri, "0" * 64, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    fetched = fetch_weights(uri, digest_of(content).upper(), cache=tmp_path / "cache")
    assert fetched.path.read_bytes() == content
    server.files.clear()
    if scheme == "memory":
        fsspec.filesystem("memory").rm(uri)
    assert fetch_weights(uri, digest_of(content), cache=tmp_path / "cache") == fetched
    with pytest.raises(WeightsError, match=f"can not download {uri}"):
        fetch_weights(uri, "1" * 64, cache=tmp_path / "cache")


def test_a_cache_that_can_not_be_made_is_told(server: LocalServer, content: bytes, register, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server.files["w.pth"] = content
    register(server.url("w.pth"))
    for reference, sha256 in (("tiny", None), (server.url("w.pth"), digest_of(content))):
        with pytest.raises(WeightsError, match=r"can not download .*(NotADirectory|FileExists)Error"):
            fetch_weights(reference, sha256, cache=tmp_path / "file" / "below")


def test_the_cache_is_the_settings_folder_unless_given(
    content: bytes, register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GWM_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / register(f"{DISCARD_PORT}/w.pth").file_name).write_bytes(content)
    assert fetch_weights("tiny").path.parent == tmp_path
    assert cached_file("tiny").parent == tmp_path


# What was imported.


def test_imported_weights_are_found_by_their_name(content: bytes, tmp_path: Path) -> None:
    path = imported_path("mine", tmp_path)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="import the checkpoint again"):
        fetch_weights("mine", cache=tmp_path)
    write_lock(path, {"sha256": digest_of(content), "network": "swin-tiny", "converter": "swin"})
    found = fetch_weights("mine", networks=("swin-tiny",), cache=tmp_path)
    assert (found.path, found.network, found.converter) == (path, "swin-tiny", "swin")
    with pytest.raises(WeightsError, match="mine are weights of swin-tiny for resnet50"):
        fetch_weights("mine", networks=("resnet50",), cache=tmp_path)
    path.write_bytes(content + b" ")
    with pytest.raises(WeightsError, match=r"pinned in .*mine\.safetensors\.lock\.json"):
        fetch_weights("mine", cache=tmp_path)
    assert json.loads(lock_path(path).read_text())["network"] == "swin-tiny"
