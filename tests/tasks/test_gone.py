from __future__ import annotations

from pathlib import Path

import pytest

from tasks.footage import FootageItem
from tasks.gone import GivenSource, given_sources, missing_sources, sources_to_look_for
from tasks.identity import Recipe
from tasks.ingest_plan import WantedVideo
from tasks.snapshot import StoredVideo

RECIPE = Recipe(schema_version=1)


def _stored(source: str, video_id: str) -> StoredVideo:
    return StoredVideo(
        video_id=video_id,
        recipe_hash=RECIPE.hash(),
        recipe=RECIPE,
        clip=source,
        source=source,
        width=8,
        height=8,
        shards=(),
    )


def _wanted(uri: str, video_id: str) -> WantedVideo:
    return WantedVideo(item=FootageItem(uri=uri, clip="clip", kind="video"), video_id=video_id)


@pytest.mark.parametrize(
    ("root", "is_glob", "source", "covered"),
    [
        ("/f", False, "/f/a.mp4", True),
        ("/f", False, "/f/deep/er/a.mp4", True),
        ("/f/a.mp4", False, "/f/a.mp4", True),
        ("/f", False, "/f2/a.mp4", False),
        ("s3://b/raw", False, "s3://b/raw/a.mp4", True),
        ("s3://b/raw", False, "s3://b/raw2/a.mp4", False),
        ("s3://b/raw", False, "/b/raw/a.mp4", False),
        ("/f/*.mp4", True, "/f/a.mp4", True),
        ("/f/*.mp4", True, "/f/sub/a.mp4", False),
        ("/f/2024-*", True, "/f/2024-07/sub/a.mp4", True),  # a matched folder is searched
        ("s3://b/*/raw", True, "s3://b/x/raw/a.mp4", True),
        ("s3://b/*/raw", True, "s3://b/x/other/a.mp4", False),
        ("/f/[2024]", False, "/f/2/a.mp4", False),  # a folder of this name
        ("zip://*.mp4::/f/a.zip", True, "zip://x.mp4::/f/a.zip", True),
        ("zip://*.mp4::/f/a.zip", True, "zip://x.mp4::/f/b.zip", False),
    ],
)
def test_a_source_lies_under_a_given_one(root: str, is_glob: bool, source: str, covered: bool) -> None:
    assert GivenSource(uri=root, is_glob=is_glob).covers(source) is covered


def test_only_what_may_be_gone_is_looked_for() -> None:
    present = [
        _stored("/f/here.mp4", "H"),
        _stored("/f/gone.mp4", "G"),
        _stored("/f/locked/x.mp4", "X"),  # in a folder that could not be listed
        _stored("/other/y.mp4", "Y"),  # not under what was given
        _stored("/mount/z.mp4", "Z"),  # under a given folder that led to nothing
        _stored("/other/moved.mp4", "M"),  # its bytes are elsewhere now
    ]
    wanted = [_wanted("/f/here.mp4", "H"), _wanted("/f/new.mp4", "M")]
    given = [GivenSource(uri="/f"), GivenSource(uri="/mount")]
    looked_for = sources_to_look_for(wanted, present, given, {"/f/locked", "/mount"})
    assert looked_for == ("/f/gone.mp4", "/other/moved.mp4")


def test_a_file_that_was_named_itself_says_nothing_about_others() -> None:
    wanted = [_wanted("/f/here.mp4", "H")]
    assert sources_to_look_for(wanted, [_stored("/f/here.mp4/x", "G")], [GivenSource(uri="/f/here.mp4")], ()) == ()


def test_the_storage_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    sources = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), "nodriver://x/a.mp4", "zip://a.mp4::/nowhere.zip"]
    assert missing_sources(sources) >= {str(tmp_path / "b.mp4")}
    assert not {sources[0], sources[2]} & missing_sources(sources)


def test_a_source_that_can_not_be_asked_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.info", refuse)
    assert missing_sources([str(tmp_path / "gone.mp4")]) == frozenset()


def test_given_sources_are_spelled_as_footage_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[a]").mkdir()
    given = given_sources(["videos/", "*.mp4", "[a]", "nodriver://x"])
    assert given == (
        GivenSource(uri=str(tmp_path / "videos")),
        GivenSource(uri=str(tmp_path / "*.mp4"), is_glob=True),
        GivenSource(uri=str(tmp_path / "[a]")),
    )
