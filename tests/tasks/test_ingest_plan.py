from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.dead_letters import DeadLetter, Refusal
from tasks.errors import REJECTION_REASONS, InputError, RejectionReason
from tasks.footage import FootageItem
from tasks.identity import Recipe
from tasks.ingest_plan import MAX_ATTEMPTS, IngestPlan, IngestPolicy, PlannedVideo, WantedVideo, plan_ingest
from tasks.schema import SCHEMA_VERSION
from tasks.snapshot import StoredShard, StoredVideo

RECIPE = Recipe(schema_version=SCHEMA_VERSION)
OLD_RECIPE = Recipe(schema_version=SCHEMA_VERSION, fps=12, gaps=(1, -1))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _wanted(source: str, video_id: str, clip: str | None = None) -> WantedVideo:
    name = clip or source.rsplit("/", 1)[-1].removesuffix(".mp4")
    return WantedVideo(item=FootageItem(uri=source, clip=name, kind="video"), video_id=video_id)


def _stored(source: str, video_id: str, recipe: Recipe = RECIPE, clip: str | None = None) -> StoredVideo:
    return StoredVideo(
        video_id=video_id,
        recipe_hash=recipe.hash(),
        recipe=recipe,
        clip=clip or source.rsplit("/", 1)[-1].removesuffix(".mp4"),
        source=source,
        width=8,
        height=8,
        shards=(StoredShard(path=f"{video_id}.parquet", num_bytes=1, num_rows=2, first_frame=0),),
    )


def _letter(video_id: str, reason: RejectionReason, attempts: int = 1, recipe: Recipe | None = RECIPE) -> DeadLetter:
    return DeadLetter(
        source="/f/a.mp4",
        stage="ingest",
        reason=reason,
        detail="",
        attempts=attempts,
        first_seen=NOW,
        last_seen=NOW,
        video_id=video_id,
        recipe_hash=recipe and recipe.hash(),
    )


def _plan_one(
    wanted: WantedVideo,
    present: list[StoredVideo] | None = None,
    rejected: list[DeadLetter] | None = None,
    *,
    missing: set[str] | None = None,
    policy: IngestPolicy | None = None,
) -> PlannedVideo:
    plan = plan_ingest([wanted], present or [], rejected or [], RECIPE, missing=missing or set(), policy=policy)
    (video,) = plan.videos
    return video


def _said(video: PlannedVideo) -> tuple[str, str, str]:
    return video.action, video.reason, video.explanation


def test_new_footage_is_ingested() -> None:
    video = _plan_one(_wanted("/f/a.mp4", "A"), [_stored("/f/b.mp4", "B")])
    assert _said(video) == ("ingest", "new", "new")
    assert video.replaces == ()


def test_the_same_bytes_and_recipe_need_nothing() -> None:
    assert _said(_plan_one(_wanted("/f/a.mp4", "A"), [_stored("/f/a.mp4", "A")])) == (
        "skip",
        "unchanged",
        "unchanged",
    )


def test_renamed_footage_only_changes_its_name() -> None:
    old = _stored("/f/old.mp4", "A")
    video = _plan_one(_wanted("/f/new.mp4", "A"), [old], missing={"/f/old.mp4"})
    assert _said(video) == ("rename", "renamed", "renamed: was /f/old.mp4")
    assert (video.clip, video.renames, video.replaces) == ("new", (old,), ())


@pytest.mark.parametrize("recipe", [RECIPE, OLD_RECIPE])
def test_a_copy_leaves_the_original_its_name(recipe: Recipe) -> None:
    original = _stored("/f/old.mp4", "A", recipe)
    plan = plan_ingest([_wanted("/f/copy.mp4", "A"), _wanted("/f/old.mp4", "A")], [original], [], RECIPE)
    assert _said(plan.videos[0]) == ("skip", "copy", "copy: the dataset has the same bytes from /f/old.mp4")
    assert plan.videos[1].reason == ("unchanged" if recipe == RECIPE else "recipe_changed")
    alone = _plan_one(_wanted("/f/copy.mp4", "A"), [_stored("/f/old.mp4", "A")])  # the original is elsewhere
    assert alone.reason == "copy"


def test_renames_may_take_each_others_names() -> None:
    present = [_stored("/f/a.mp4", "A"), _stored("/f/b.mp4", "B"), _stored("/f/c.mp4", "C")]
    wanted = [_wanted("/f/b.mp4", "A"), _wanted("/f/c.mp4", "B"), _wanted("/f/a.mp4", "C")]
    plan = plan_ingest(wanted, present, [], RECIPE)
    assert [(video.clip, video.action) for video in plan.videos] == [("b", "rename"), ("c", "rename"), ("a", "rename")]


def test_what_is_gone_is_removed_on_request_only() -> None:
    kept, gone, moved = _stored("/f/a.mp4", "A"), _stored("/f/gone.mp4", "G"), _stored("/f/old.mp4", "M")
    wanted = [_wanted("/f/a.mp4", "A"), _wanted("/f/new.mp4", "M")]
    missing = {"/f/gone.mp4", "/f/old.mp4"}
    plan = plan_ingest(wanted, [kept, gone, moved], [], RECIPE, missing=missing)
    assert (plan.gone, plan.to_remove) == ((gone,), ())
    plan = plan_ingest(wanted, [kept, gone, moved], [], RECIPE, missing=missing, policy=IngestPolicy(prune=True))
    assert plan.to_remove == (gone,)
    assert [video.source for video in plan.to_rename] == ["/f/new.mp4"]


def test_changed_bytes_replace_what_the_source_held() -> None:
    old = _stored("/f/a.mp4", "A")
    video = _plan_one(_wanted("/f/a.mp4", "A2"), [old, _stored("/f/b.mp4", "B")])
    assert _said(video) == ("ingest", "bytes_changed", "bytes changed")
    assert video.replaces == (old,)
    assert video.clip == "a"


def test_a_changed_recipe_rebuilds_and_names_the_fields() -> None:
    old = _stored("/f/a.mp4", "A", OLD_RECIPE)
    video = _plan_one(_wanted("/f/a.mp4", "A"), [old])
    assert _said(video) == ("ingest", "recipe_changed", "recipe changed: fps, gaps")
    assert video.replaces == (old,)


def test_a_partly_changed_recipe_says_what_is_made_anew() -> None:
    old = _stored("/f/a.mp4", "A", RECIPE.model_copy(update={"jpeg_quality": 70}))
    assert _plan_one(_wanted("/f/a.mp4", "A"), [old]).explanation == (
        "recipe changed: jpeg_quality (JPEG made anew, optical flow of gaps 1, -1, 2, -2 copied)"
    )


def test_swapped_files_lose_nothing() -> None:
    present = [_stored("/f/a.mp4", "A"), _stored("/f/b.mp4", "B")]
    plan = plan_ingest([_wanted("/f/a.mp4", "B"), _wanted("/f/b.mp4", "A")], present, [], RECIPE)
    assert [video.explanation for video in plan.videos] == ["renamed: was /f/b.mp4", "renamed: was /f/a.mp4"]
    assert [video.clip for video in plan.to_rename] == ["a", "b"]


def test_bytes_that_moved_away_are_not_replaced() -> None:
    plan = plan_ingest(
        [_wanted("/f/a.mp4", "NEW"), _wanted("/f/moved.mp4", "A")], [_stored("/f/a.mp4", "A")], [], RECIPE
    )
    assert [video.reason for video in plan.videos] == ["bytes_changed", "renamed"]
    assert plan.videos[0].replaces == ()


def test_the_same_bytes_twice_are_ingested_once() -> None:
    plan = plan_ingest([_wanted("/f/a.mp4", "A"), _wanted("/f/copy.mp4", "A")], [], [], RECIPE)
    assert [video.reason for video in plan.videos] == ["new", "duplicate"]
    assert plan.videos[1].explanation == "same bytes as /f/a.mp4"


@pytest.mark.parametrize("reason", ["corrupt", "not_video", "too_short", "mixed_sizes"])
def test_footage_at_fault_is_not_tried_again(reason: RejectionReason) -> None:
    video = _plan_one(_wanted("/f/a.mp4", "A"), rejected=[_letter("A", reason, 2)])
    assert _said(video) == ("skip", "rejected_before", f"rejected before: {reason}, 2 attempts")


@pytest.mark.parametrize("reason", ["crashed", "timeout", "internal"])
def test_passing_reasons_are_tried_again_a_few_times(reason: RejectionReason) -> None:
    first = _plan_one(_wanted("/f/a.mp4", "A"), rejected=[_letter("A", reason, 1)])
    assert _said(first) == ("ingest", "tried_again", f"tried again after {reason}, 1 attempt")
    last = _plan_one(_wanted("/f/a.mp4", "A"), rejected=[_letter("A", reason, MAX_ATTEMPTS)])
    assert _said(last) == ("skip", "rejected_before", f"rejected before: {reason}, {MAX_ATTEMPTS} attempts")


def test_a_refusal_under_another_recipe_or_of_other_bytes_does_not_count() -> None:
    letters = [_letter("A", "too_short", recipe=OLD_RECIPE), _letter("other", "corrupt")]
    assert _plan_one(_wanted("/f/a.mp4", "A"), rejected=letters).reason == "new"


def test_the_newest_refusal_counts() -> None:
    letters = [_letter("A", "corrupt"), _letter("A", "crashed")]  # newest first
    assert _plan_one(_wanted("/f/a.mp4", "A"), rejected=letters).reason == "rejected_before"


def test_refused_footage_is_tried_on_request() -> None:
    letters = [_letter("A", "corrupt", 9), _letter("B", "too_short"), _letter("C", "crashed", 9)]
    wanted = [_wanted(f"/f/{name}.mp4", name) for name in "ABC"]
    for retry, tried in (({"corrupt"}, "A"), ({"crashed", "corrupt"}, "AC"), (set(REJECTION_REASONS), "ABC")):
        plan = plan_ingest(wanted, [], letters, RECIPE, policy=IngestPolicy(retry=frozenset(retry)))
        assert "".join(video.wanted.video_id for video in plan.to_ingest) == tried
    assert plan.videos[0].explanation == "tried again after corrupt, 9 attempts"


def test_the_cap_on_attempts_is_the_users() -> None:
    letter = _letter("A", "timeout", 3)
    for cap, action in ((3, "skip"), (4, "ingest")):
        video = _plan_one(_wanted("/f/a.mp4", "A"), rejected=[letter], policy=IngestPolicy(max_attempts=cap))
        assert video.action == action
    with pytest.raises(InputError, match="max_attempts=0"):
        IngestPolicy(max_attempts=0)


def test_what_is_stored_wins_over_an_old_refusal() -> None:
    video = _plan_one(_wanted("/f/a.mp4", "A"), [_stored("/f/a.mp4", "A")], [_letter("A", "crashed")])
    assert video.reason == "unchanged"


def test_a_rebuild_that_crashed_still_replaces() -> None:
    old = _stored("/f/a.mp4", "A", OLD_RECIPE)
    video = _plan_one(_wanted("/f/a.mp4", "A"), [old], [_letter("A", "crashed")])
    assert (video.reason, video.replaces) == ("tried_again", (old,))


def test_clip_names_stay_apart() -> None:
    plan = plan_ingest(
        [_wanted("/g/a.mp4", "12345678ff"), _wanted("/h/b.mp4", "B"), _wanted("/k/A.mp4", "87654321ff")],
        [_stored("/f/a.mp4", "A")],
        [],
        RECIPE,
    )
    assert [video.clip for video in plan.videos] == [
        "a-12345678",
        "b",
        "A-87654321",
    ]  # in any case, as file names are compared


def test_batches_hold_what_is_to_be_ingested_and_nothing_else() -> None:
    wanted = [_wanted(f"/f/{index}.mp4", str(index)) for index in range(6)]
    refusal = Refusal(source="/gone", stage="discover", reason="not_found", detail="")
    plan = plan_ingest(wanted, [_stored("/f/2.mp4", "2")], [], RECIPE, refusals=[refusal])
    assert [[video.wanted.video_id for video in batch] for batch in plan.batches(2)] == [
        ["0", "1"],
        ["3", "4"],
        ["5"],
    ]
    assert [video.wanted.video_id for video in plan.to_skip] == ["2"]
    assert plan.refusals == (refusal,)
    assert IngestPlan(recipe=RECIPE, videos=()).batches(5) == []
    with pytest.raises(InputError, match="at least one video"):
        plan.batches(0)
