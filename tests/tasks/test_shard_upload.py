from __future__ import annotations

import hashlib
from pathlib import Path
from unittest.mock import patch

import boto3
import pytest

from tasks.errors import StorageError
from tasks.shard_upload import arrived, etags, upload_shard
from tasks.storage import location


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shard.parquet"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_a_store_has_is_compared_with_what_was_sent(file: Path, s3_root: str) -> None:
    target = location(s3_root) / "shard.parquet"
    upload_shard(file, _sha256(file), target)
    assert target.read_bytes() == file.read_bytes()
    bucket, _, key = target.path.partition("/")
    client = boto3.client("s3")
    told = client.head_object(Bucket=bucket, Key=key)
    assert told["ETag"].strip('"') in etags(file)
    first = told["LastModified"]
    with patch("tasks.shard_upload._hash_of", side_effect=AssertionError("read back although the ETag tells")):
        upload_shard(file, _sha256(file), target)  # an orphan of the same bytes: written again
    assert client.head_object(Bucket=bucket, Key=key)["LastModified"] >= first


def test_other_bytes_are_told(file: Path, s3_root: str) -> None:
    target = location(s3_root) / "shard.parquet"
    sent, size = _sha256(file), file.stat().st_size
    file.write_bytes(b"x" * size)  # as if they had changed on their way
    with (
        patch("tasks.shard_upload.etags", return_value={"of what was meant to be sent"}),
        pytest.raises(StorageError, match="other bytes are there"),
    ):
        upload_shard(file, sent, target)


def test_without_an_etag_of_content_the_object_is_read_back(file: Path, tmp_path: Path) -> None:
    copy = location(tmp_path / "copy")
    copy.write_bytes(file.read_bytes())
    told = {"size": file.stat().st_size, "ETag": "encrypted"}
    assert arrived(file, _sha256(file), told, copy)
    copy.write_bytes(b"y" * file.stat().st_size)
    assert not arrived(file, _sha256(file), told, copy)
    assert not arrived(file, _sha256(file), told | {"size": 3}, copy)


def test_the_etag_of_parts_is_that_of_their_hashes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abcde")
    md5s = b"".join(hashlib.md5(part).digest() for part in (b"ab", b"cd", b"e"))
    assert etags(file, 2) == {hashlib.md5(b"abcde").hexdigest(), hashlib.md5(md5s).hexdigest() + "-3"}
