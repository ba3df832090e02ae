"""Places against the real file system, and against fsspec's memory for everything that is neither local nor S3."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.errors import StorageError
from tasks.local_files import TEMPORARY_SUFFIX
from tasks.storage import Location, location, prove_writable


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "s3":
        return location(request.getfixturevalue("s3_root"))
    place = location(tmp_path / "folder" if request.param == "local" else f"memory://{tmp_path.name}")
    place.delete()
    return place


def test_bytes_come_back(folder: Location) -> None:
    place = folder / "a" / "b.bin"
    place.write_bytes(b"first")
    place.write_bytes(b"second")
    assert place.read_bytes() == b"second"
    assert (place.exists(), place.is_folder(), place.size(), place.name) == (True, False, 6, "b.bin")
    with place.open_input() as stream:
        stream.seek(3)
        assert stream.read() == b"ond"


def test_a_file_that_is_written_again_is_read_as_one_or_the_other(folder: Location) -> None:
    """A reader that asks for the size first, and then for the bytes, may get those of two files."""
    place, versions = folder / "progress.json", [bytes([65 + number]) * (100 + 7 * number) for number in range(8)]
    place.write_bytes(versions[0])
    ended = threading.Event()

    def write() -> None:
        for number in itertools.cycle(range(len(versions))):
            if ended.is_set():
                return
            place.write_bytes(versions[number])

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            seen: Counter[bytes] = Counter()
            while seen.total() < 300 or len(seen) < 2:
                seen[place.read_bytes()] += 1
        finally:
            ended.set()
        writer.result()
    assert set(seen) <= set(versions)


def test_listing_is_sorted_and_names_files_and_folders_apart(folder: Location) -> None:
    for name in ("step_2/model", "step_10/model", "top"):
        (folder / name).write_bytes(b"x")
    names = [place.uri.removeprefix(folder.uri) for place in folder.list(recursive=True)]
    assert names == ["/step_10/model", "/step_2/model", "/top"]
    assert [place.name for place in folder.list()] == ["top"]
    assert [place.name for place in folder.list_folders()] == ["step_10", "step_2"]
    assert (folder / "missing").list() == ()
    assert folder.list()[0].read_bytes() == b"x"


def test_delete_takes_files_folders_and_nothing(folder: Location) -> None:
    (folder / "a/b").write_bytes(b"x")
    (folder / "a/c").write_bytes(b"x")
    (folder / "a/b").delete()
    assert [place.name for place in (folder / "a").list()] == ["c"]
    (folder / "a").delete()
    (folder / "a").delete()
    assert not (folder / "a").exists()


def test_missing_file_says_what_could_not_be_done(folder: Location) -> None:
    with pytest.raises(StorageError, match=r"can not read .*nothing"):
        (folder / "nothing").read_bytes()
    with pytest.raises(StorageError, match="no file there"):
        (folder / "nothing").size()


def test_writable_places_are_proved_and_left_clean(folder: Location) -> None:
    prove_writable(folder)
    assert folder.list() == ()


def test_unwritable_place_says_which_step_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(StorageError, match=r"not writable: could not make the folder.*free space"):
        prove_writable(location(tmp_path / "file" / "folder"))
    with pytest.raises(StorageError, match="could not make the folder"):
        prove_writable(location("/proc/nowhere"))


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = location(tmp_path / "file")
    place.write_bytes(b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        place.write_bytes(b"new")
    assert place.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_of_killed_writers_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / f".file.0123{TEMPORARY_SUFFIX}").write_bytes(b"half")
    (tmp_path / "file").write_bytes(b"whole")
    assert [place.name for place in location(tmp_path).list()] == ["file"]


def test_local_uris_become_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / "a b")
    for uri in ("a b", "./a b/", "~/a b", f"file://{tmp_path}/a%20b", tmp_path / "a b"):
        assert location(uri).uri == expected
    assert location("a b").local_path == tmp_path / "a b"


@pytest.mark.parametrize("relative", ["../up", "a/../../up", "/etc", "", "a//b", "."])
def test_joining_can_not_leave_the_folder(tmp_path: Path, relative: str) -> None:
    with pytest.raises(StorageError, match="expected a relative path"):
        location(tmp_path) / relative


@pytest.mark.parametrize("uri", ["nosuchscheme://bucket/key", "", "   ", "~no such user/data"])
def test_bad_uris_are_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="expected a path"):
        location(uri)


def test_remote_places_have_no_local_path() -> None:
    with pytest.raises(StorageError, match="not on this machine"):
        _ = location("s3://bucket/key").local_path


def test_locations_travel_between_processes(folder: Location) -> None:
    (folder / "a").write_bytes(b"x")
    assert pickle.loads(pickle.dumps(folder / "a")).read_bytes() == b"x"


def test_of_writers_at_once_one_is_first(folder: Location) -> None:
    place = folder / "version"
    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda number: place.write_new(b"%d" % number), range(8)))
    assert first.count(True) == 1
    assert place.read_bytes() == b"%d" % first.index(True)
    assert [found.name for found in folder.list()] == ["version"]


def test_uploads_leave_what_is_there(folder: Location, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first")
    assert (folder / "shard").upload_new(file)
    file.write_bytes(b"second")
    assert not (folder / "shard").upload_new(file)
    assert (folder / "shard").read_bytes() == b"first"


@pytest.mark.parametrize("uri", ["s3://key:hidden@bucket/data", "https://user:hidden@host/data"])
def test_uris_that_hold_a_password_are_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(StorageError, match="into the environment") as caught:
        location(uri)
    assert "hidden" not in str(caught.value)
