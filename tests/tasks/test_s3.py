"""S3 against a real server: how it is set up, what a wrong setting is called, and what outlives a killed server."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray

from tasks import s3
from tasks.errors import StorageError
from tasks.s3_setting import S3Setting, job_environment, s3_setting
from tasks.storage import Location, fsspec_view, location, prove_writable, storage_options
from tests.s3_server import S3Server, reserve_port

MEBIBYTE = 1 << 20


def test_the_setting_is_the_environment_of_every_aws_client() -> None:
    setting = s3_setting({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"})
    assert setting == S3Setting(endpoint="http://127.0.0.1:9000", region="us-east-1")
    both = {"AWS_ENDPOINT_URL": "http://one", "AWS_ENDPOINT_URL_S3": "http://two", "AWS_DEFAULT_REGION": "eu-north-1"}
    assert s3_setting(both) == S3Setting(endpoint="http://two", region="eu-north-1")
    assert s3_setting({}) == S3Setting(endpoint=None, region=None)
    assert s3_setting({}).place == "Amazon S3"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "s3://bucket", "http://", "http://user:hidden@host:9000"])
def test_endpoints_that_are_no_addresses_are_refused(endpoint: str) -> None:
    with pytest.raises(StorageError, match="expected") as caught:
        s3_setting({"AWS_ENDPOINT_URL": endpoint})
    assert "hidden" not in str(caught.value)


def test_jobs_share_the_address_and_never_the_key() -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_SESSION_TOKEN": "hidden"}
    assert job_environment({**credentials, "AWS_REGION": "eu-north-1"}) == {"AWS_REGION": "eu-north-1"}
    assert job_environment({**credentials, "AWS_ENDPOINT_URL": "http://ceph:9000"}) == {
        "AWS_ENDPOINT_URL": "http://ceph:9000",
        "AWS_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # Ceph answers 411 without it
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


def test_no_handle_holds_the_key(s3_root: str) -> None:
    place = location(s3_root)
    filesystem, _ = fsspec_view(s3_root)
    handles = [place, storage_options(s3_root), s3_setting(), filesystem.storage_options, vars(filesystem)]
    pickled = [pickle.dumps(place), pickle.dumps(place.filesystem), pickle.dumps(filesystem)]
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert not [handle for handle in handles if secret in repr(handle)]
    assert not [data for data in pickled if secret.encode() in data]


def test_processes_of_ray_have_what_the_clients_need(ray_cluster: None, s3_root: str) -> None:
    (location(s3_root) / "file").write_bytes(b"here")

    @ray.remote
    def read(place: Location) -> tuple[bytes, str | None]:
        return place.read_bytes(), os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION")

    assert ray.get(read.remote(location(s3_root) / "file")) == (b"here", "when_required")


WRONG: list[tuple[dict[str, str | None], str, str]] = [
    ({"AWS_SECRET_ACCESS_KEY": "hidden-other-key"}, "", "secret key does not belong to the access key"),
    ({"AWS_ACCESS_KEY_ID": "nobody:nobody"}, "", "does not know the access key|does not belong|refuses"),
    ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "", "no credentials; set AWS_ACCESS_KEY_ID"),
    ({}, "no-such-bucket", "no such bucket"),
    ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "", "is the server running, and AWS_ENDPOINT_URL its address"),
    ({"AWS_ENDPOINT_URL": "http://no-such-host.invalid:1"}, "", "is the server running"),
]
USES: list[Callable[[str], object]] = [
    lambda uri: prove_writable(location(uri)),
    lambda uri: location(f"{uri}/file").read_bytes(),
    storage_options,
    fsspec_view,
]


@pytest.mark.parametrize(("changes", "bucket", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_a_wrong_setting_is_told_by_name_and_at_once(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], bucket: str, message: str
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # not even asked for credentials
    for name, value in changes.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    s3._answers.cache_clear()
    s3._arrow_filesystem.cache_clear()  # it took the credentials when it was made
    started = time.monotonic()
    try:
        for use in USES:
            with pytest.raises(StorageError, match=message) as caught:
                use(f"s3://{bucket}/data" if bucket else s3_root)
            assert "hidden" not in str(caught.value)
    finally:
        s3._arrow_filesystem.cache_clear()
    assert time.monotonic() - started < 60  # retries of the libraries would be minutes


def test_a_server_that_is_killed_in_an_upload_costs_time_and_no_file(
    s3_store: S3Server, s3_root: str, tmp_path: Path
) -> None:
    folder, data = location(s3_root), os.urandom(24 * MEBIBYTE)
    (tmp_path / "shard").write_bytes(data)
    (folder / "before").write_bytes(b"kept")
    with ThreadPoolExecutor() as pool:
        uploads = [
            pool.submit((folder / "uploaded").upload_new, tmp_path / "shard"),
            pool.submit((folder / "written").write_bytes, data),
        ]
        time.sleep(0.3)
        s3_store.kill()
        assert not all(upload.done() for upload in uploads)
        time.sleep(0.5)
        s3_store.start()
        for upload in uploads:
            upload.result()
    assert sorted(place.name for place in folder.list()) == ["before", "uploaded", "written"]
    assert (folder / "before").read_bytes() == b"kept"
    assert (folder / "uploaded").read_bytes() == (folder / "written").read_bytes() == data


def test_what_others_write_is_seen_by_a_process_that_lives_on(s3_root: str) -> None:
    filesystem, path = fsspec_view(s3_root)
    (location(s3_root) / "first").write_bytes(b"x")
    assert [entry.rsplit("/")[-1] for entry in filesystem.ls(path, detail=False)] == ["first"]
    (location(s3_root) / "second").write_bytes(b"x")  # by another client: pyarrow
    assert [entry.rsplit("/")[-1] for entry in filesystem.ls(path, detail=False)] == ["first", "second"]


def test_ports_are_kept_for_one_server() -> None:
    with reserve_port() as one, reserve_port() as other:
        assert one.getsockname() != other.getsockname()
        with socket.socket() as third, pytest.raises(OSError, match="in use"):
            third.bind(one.getsockname())


def test_threads_share_one_question(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3._answers.cache_clear()
    threads = [threading.Thread(target=location(s3_root).exists) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert s3._answers.cache_info().currsize == 1
