"""Discovery on real folders: what is found, in which order, under which name, and what is said of the rest."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from tasks.errors import FootageError, InputError
from tasks.footage import MAX_CLIP_NAME_BYTES, clip_names, discover
from tasks.footage_files import list_images, natural_key, open_footage
from tests.shared import DAVIS, shared_or_skip


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.new("RGB", (4, 4)).save(path)
        else:
            path.write_bytes(b"")


def found(*sources: object, follow_links: bool = False) -> list[tuple[str, str]]:
    discovery = discover([str(source) for source in sources], follow_links=follow_links)
    return [(item.clip, item.kind) for item in discovery.items]


def test_davis_by_root_by_resolution_and_by_sequence() -> None:
    root = shared_or_skip(DAVIS)
    sequences = sorted(path.name for path in (root / "JPEGImages/480p").iterdir())
    for source in (root, root / "JPEGImages", root / "JPEGImages/480p"):
        items = discover([str(source)]).items
        assert [item.clip for item in items] == sequences
        assert {item.kind for item in items} == {"frames"}
        assert items[0].uri == str(root / "JPEGImages/480p" / sequences[0])
        assert items[0].annotation_uri == str(root / "Annotations/480p" / sequences[0])
    (dog,) = discover([str(root / "JPEGImages/480p/dog")]).items
    assert (dog.clip, dog.annotation_uri) == ("dog", str(root / "Annotations/480p/dog"))
    assert found(f"{root}/JPEGImages/480p/d*") == [("dog", "frames"), ("drift-straight", "frames")]


def test_davis_takes_the_benchmark_resolution_and_lives_without_masks(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/1080p/dog/0.jpg", "JPEGImages/480p/dog/0.jpg", "Annotations/480p/cat/0.png")
    (item,) = discover([str(tmp_path)]).items
    assert item.uri == str(tmp_path / "JPEGImages/480p/dog")
    assert item.annotation_uri is None
    (item,) = discover([str(tmp_path / "JPEGImages/1080p")]).items
    assert item.uri == str(tmp_path / "JPEGImages/1080p/dog")


def test_sequences_directly_below_jpegimages(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/a/0.jpg", "JPEGImages/b/0.jpg", "Annotations/b/0.png")
    items = discover([str(tmp_path)]).items
    assert [(item.clip, item.annotation_uri is not None) for item in items] == [("a", False), ("b", True)]


def test_folder_of_videos_is_searched_recursively_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "take10.mp4", "take2.MOV", "day/take1.webm", "notes.txt", ".hidden.mp4", "take2.jpg")
    touch(tmp_path, "frames/0.png", "frames/1.png")
    expected = [("take2", "video"), ("take10", "video"), ("take1", "video"), ("frames", "frames")]
    assert found(tmp_path) == expected


def test_single_files_globs_and_repeats(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mkv", "c.jpg", "readme.txt", "d[1].mp4")
    assert found(tmp_path / "a.mp4") == [("a", "video")]
    assert found(tmp_path / "c.jpg") == [("c", "image")]
    assert found(tmp_path / "readme.txt") == [("readme.txt", "video")]  # named by the user: decoding will tell
    assert found(tmp_path / "*.m*") == [("a", "video"), ("b", "video"), ("d_1", "video")]
    assert found(tmp_path / "d[1].mp4") == [("d_1", "video")]  # a file of that name comes before a pattern
    assert found(tmp_path / "a.mp4", tmp_path / "?.mp4", (tmp_path / "a.mp4").as_uri()) == [("a", "video")]


def test_what_leads_nowhere_is_rejected_and_the_rest_goes_on(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "empty/readme.txt")
    sources = ["a.mp4", "missing.mp4", "*.avi", "empty", "empty/*"]
    discovery = discover([str(tmp_path / source) for source in sources] + ["nosuchscheme://x/y"])
    assert [item.clip for item in discovery.items] == ["a"]
    assert {rejection.reason for rejection in discovery.rejections} == {"not_found"}
    details = [rejection.detail for rejection in discovery.rejections]
    for detail, part in zip(
        details, ["nothing at", "(0 other files do)", "holds no videos", "(1 other files do)", "no driver"], strict=True
    ):
        assert part in detail


def test_nothing_at_all_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no footage found: nothing at .*missing.*Expected videos \(\.avi"):
        discover([str(tmp_path / "missing")])
    with pytest.raises(InputError, match="no sources given"):
        discover([])


def test_a_link_to_a_parent_folder_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/clip.mp4")
    (tmp_path / "a/b/loop").symlink_to(tmp_path)
    assert found(tmp_path) == [("clip", "video")]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "disk/480p/dog/0.jpg", "disk/masks/dog/0.png", "disk/take.mp4")
    for name, target in (("JPEGImages", "disk"), ("Annotations/480p", "disk/masks")):
        link = tmp_path / "davis" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / target)
    (item,) = discover([str(tmp_path / "davis")], follow_links=True).items
    assert item.uri == str(tmp_path / "davis/JPEGImages/480p/dog")
    assert item.annotation_uri == str(tmp_path / "davis/Annotations/480p/dog")
    (tmp_path / "library").mkdir()
    (tmp_path / "library/linked").symlink_to(tmp_path / "disk/480p")
    (tmp_path / "library/take.mp4").symlink_to(tmp_path / "disk/take.mp4")
    assert found(tmp_path / "library", follow_links=True) == [("take", "video"), ("dog", "frames")]


def test_links_that_lead_out_of_the_source_are_refused_unless_they_are_trusted(tmp_path: Path) -> None:
    touch(tmp_path, "disk/take.mp4", "disk/dog/0.jpg", "library/own.mp4", "library/frames/0.jpg", "library/more/b.mp4")
    library = tmp_path / "library"
    (library / "inside.mp4").symlink_to(library / "own.mp4")
    (library / "take.mp4").symlink_to(tmp_path / "disk/take.mp4")
    (library / "dog").symlink_to(tmp_path / "disk/dog")
    (library / "frames/1.jpg").symlink_to(tmp_path / "disk/dog/0.jpg")
    for source in (library, library / "*"):
        discovery = discover([str(source)])
        assert {item.clip for item in discovery.items} == {"own", "inside", "frames", "b"} | (
            set() if source == library else {"take"}  # a match of a pattern is looked at when it is opened
        )
        refused = {Path(rejection.source).name: rejection for rejection in discovery.rejections}
        assert {rejection.reason for rejection in refused.values()} == {"forbidden"}
        assert "GWM_DECODE_FOLLOW_LINKS" in refused["dog"].detail
        (frames,) = (item for item in discovery.items if item.clip == "frames")
        with pytest.raises(FootageError, match=r"forbidden: .*1\.jpg leads to"):
            list_images(frames.uri, frames.within)
    with pytest.raises(FootageError, match=r"forbidden: .*take\.mp4 leads to"):
        open_footage(str(library / "take.mp4"), str(library))
    assert found(library / "take.mp4") == [("take", "video")]  # what is named itself is wanted
    assert len(found(library, follow_links=True)) == 6


def test_what_is_no_file_or_has_no_text_for_a_name_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").symlink_to("/dev/zero")
    (tmp_path / os.fsdecode(b"\xff.mp4")).write_bytes(b"")
    discovery = discover([str(tmp_path)], follow_links=True)
    assert [item.clip for item in discovery.items] == ["a"]
    details = [rejection.detail for rejection in discovery.rejections if rejection.reason == "forbidden"]
    assert sorted(word for detail in details for word in ("pipe", "device", "UTF-8") if word in detail) == [
        "UTF-8",
        "device",
        "pipe",
    ]
    (rejection,) = discover([str(tmp_path / "a.mp4"), os.fsdecode(b"/\xff.mp4")]).rejections
    assert (rejection.source, rejection.reason) == (r"/\udcff.mp4", "forbidden")
    with pytest.raises(FootageError, match=r"forbidden: .*named pipe"):
        open_footage(str(tmp_path / "b.mp4"))  # and does not wait for a writer


def test_details_hold_nothing_that_a_terminal_obeys() -> None:
    assert FootageError("corrupt", "a\n\x1b[2Jb\udcff").detail == r"a\n\x1b[2Jb\udcff"


def test_a_folder_that_can_not_be_listed_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "lost+found/b.mp4", "more/c.mp4")
    listing = LocalFileSystem.ls

    def ls(self: LocalFileSystem, path: str, detail: bool = False, **options: Any) -> Any:
        if path.endswith("lost+found"):  # permissions do not bind the superuser, who may run this test
            raise PermissionError(13, "Permission denied", path)
        return listing(self, path, detail=detail, **options)

    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    for source in (tmp_path, f"{tmp_path}/*"):
        discovery = discover([str(source)])
        assert [item.clip for item in discovery.items] == ["a", "c"]
        (rejection,) = discovery.rejections
        assert (rejection.source, rejection.reason) == (str(tmp_path / "lost+found"), "not_found")
        assert "Permission denied" in rejection.detail


def test_equal_stems_get_their_folder_then_a_hash(tmp_path: Path) -> None:
    touch(tmp_path, "cam1/clip.mp4", "cam2/clip.mp4", "cam2/other.mp4", "cam3/x.mp4", "cam3/X.mov")
    items = discover([str(tmp_path)]).items
    names = [item.clip for item in items]
    assert names[:3] == ["cam1_clip", "cam2_clip", "other"]
    assert all(name.lower().startswith("x-") for name in names[3:])
    assert len({name.casefold() for name in names}) == 5
    turned = discover([str(tmp_path / cam) for cam in ("cam3", "cam2", "cam1")]).items
    assert {item.uri: item.clip for item in turned} == {item.uri: item.clip for item in items}


def test_clip_names_are_safe_as_file_names() -> None:
    uris = ["/x/../..mp4", "/x/a b\n/c$.mp4", "/x/видео 1.mp4", f"/x/{'й' * 200}.mp4", "/x/___.mp4", "/y/v1.2.mov"]
    names = clip_names(uris)
    assert names["/x/видео 1.mp4"] == "видео_1"
    assert names["/y/v1.2.mov"] == "v1.2"
    for name in names.values():
        assert name
        assert Path(name).name == name
        assert not name.startswith(".")
        assert len(name.encode()) <= MAX_CLIP_NAME_BYTES + 9
    assert len(set(names.values())) == len(uris)


def test_fsspec_folders_and_globs() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("/footage_test/a.mp4", "/footage_test/JPEGImages/dog/0.jpg", "/footage_test/Annotations/dog/0.png"):
        memory.pipe(name, b"x")
    (dog,) = discover(["memory://footage_test"]).items
    assert dog.uri == "memory:///footage_test/JPEGImages/dog"
    assert dog.annotation_uri == "memory:///footage_test/Annotations/dog"
    assert list_images(dog.uri) == ("memory:///footage_test/JPEGImages/dog/0.jpg",)
    assert found("memory://footage_test/*.mp4", "memory://footage_test/a.mp4") == [("a", "video")]
    memory.rm("/footage_test", recursive=True)


def test_members_of_an_archive(tmp_path: Path) -> None:
    touch(tmp_path, "day/a.mp4", "day/b.mkv")
    with zipfile.ZipFile(tmp_path / "footage.zip", "w") as archive:
        for name in ("day/a.mp4", "day/b.mkv"):
            archive.write(tmp_path / name, name)
    assert found(f"zip://day::{tmp_path}/footage.zip") == [("a", "video"), ("b", "video")]
    assert found(f"zip://*/b.*::{tmp_path}/footage.zip") == [("b", "video")]


def test_new_files_are_seen_by_a_process_that_listed_before(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    assert len(found(tmp_path)) == 1
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert len(found(tmp_path)) == 2


def test_natural_order() -> None:
    ordered = ["9.jpg", "10.jpg", "e.jpg", "f1.jpg", "f1a.jpg", "f9.jpg", "f10.jpg"]
    assert sorted(sorted(ordered), key=natural_key) == ordered
