"""What an ingest will do to each video, and why: decided from values alone, before any frame is decoded.

The identity of a video is content x recipe. Compared with what the dataset holds and with what it refused before:

========================================  ========  ============================================
the dataset has                           action    reason
========================================  ========  ============================================
the same bytes, the same recipe           skip      unchanged
the same, from a source that is gone      rename    renamed: only the record of its name changes
the same, from a source that is there     skip      copy of that source
the same bytes, another recipe            ingest    recipe changed: the fields that differ
other bytes from this source              ingest    bytes changed
nothing, and refused these bytes before   skip      rejected before: reason, number of attempts
nothing                                   ingest    new
========================================  ========  ============================================

Refusals that lie in the footage are final; those that may lie in the circumstances are tried again a few times. A
stored video whose source is gone stays, unless the policy says that it is to be removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tasks.clip_names import ClipNames
from tasks.dead_letters import DeadLetter, Refusal
from tasks.errors import InputError, RejectionReason
from tasks.footage import FootageItem
from tasks.identity import Recipe, recipe_difference
from tasks.recipe_changes import rework
from tasks.snapshot import StoredVideo

Action = Literal["ingest", "rename", "skip"]
Reason = Literal[
    "new",
    "bytes_changed",
    "recipe_changed",
    "tried_again",
    "unchanged",
    "renamed",
    "copy",
    "duplicate",
    "rejected_before",
]

PASSING_REASONS: frozenset[RejectionReason] = frozenset({"changed", "crashed", "timeout", "internal"})
"""Refusals that another run may not meet: whoever wrote to it, the machine or we, not the footage, may be to blame."""

MAX_ATTEMPTS = 3
"""Runs in which footage refused for a passing reason is tried before it is skipped."""


@dataclass(frozen=True, kw_only=True)
class IngestPolicy:
    """What the user wants done about footage that was refused or that is gone.

    retry: reasons of refusals that are tried again however often they were, and whatever lies behind them.
    max_attempts: runs in which other footage is tried that was refused for one of PASSING_REASONS.
    prune: remove stored videos whose source lies under a given source and is gone.
    """

    retry: frozenset[RejectionReason] = frozenset()
    max_attempts: int = MAX_ATTEMPTS
    prune: bool = False

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise InputError(f"max_attempts={self.max_attempts}: expected at least 1, which tries nothing twice")

    def tries_again(self, letter: DeadLetter) -> bool:
        """Whether footage that was refused like this gets another attempt."""
        passing = letter.reason in PASSING_REASONS and letter.attempts < self.max_attempts
        return passing or letter.reason in self.retry


@dataclass(frozen=True, kw_only=True)
class WantedVideo:
    """Footage that was found, the identity of its bytes, and how many they are (0 where nobody counted).

    stamp: by which it is known later that they did not change (``tasks/footage_stamp.py``).
    """

    item: FootageItem
    video_id: str
    num_bytes: int = 0
    stamp: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedVideo:
    """What will be done about one piece of footage.

    explanation: the reason for people, with its particulars.
    clip: name to store it under, unlike any other of the dataset.
    replaces: stored videos that must vanish when this one appears. One of them with the same bytes was made with
    another recipe, and what that has in common with the new one is copied from it.
    renames: stored videos that get this one's name and source.
    """

    wanted: WantedVideo
    action: Action
    reason: Reason
    explanation: str
    clip: str
    replaces: tuple[StoredVideo, ...] = ()
    renames: tuple[StoredVideo, ...] = ()

    @property
    def source(self) -> str:
        """Where the footage lies."""
        return self.wanted.item.uri


@dataclass(frozen=True, kw_only=True)
class IngestPlan:
    """What will be done about each video, what could not even be looked at, and what is gone.

    gone: stored videos whose source, under one of those given, is no more; prune: whether they are removed.
    """

    recipe: Recipe
    videos: tuple[PlannedVideo, ...]
    refusals: tuple[Refusal, ...] = ()
    gone: tuple[StoredVideo, ...] = ()
    prune: bool = False

    @property
    def to_ingest(self) -> tuple[PlannedVideo, ...]:
        """Videos whose rows will be made."""
        return self._with_action("ingest")

    @property
    def to_rename(self) -> tuple[PlannedVideo, ...]:
        """Videos of which only the record of name and source will change."""
        return self._with_action("rename")

    @property
    def to_skip(self) -> tuple[PlannedVideo, ...]:
        """Videos that need nothing, or get nothing."""
        return self._with_action("skip")

    @property
    def to_remove(self) -> tuple[StoredVideo, ...]:
        """Stored videos that will vanish."""
        return self.gone if self.prune else ()

    def batches(self, num_videos: int) -> list[tuple[PlannedVideo, ...]]:
        """Videos to ingest in groups of at most ``num_videos``, each of which will be one transaction."""
        if num_videos < 1:
            raise InputError(f"batches({num_videos}): expected at least one video per batch")
        todo = self.to_ingest
        return [todo[start : start + num_videos] for start in range(0, len(todo), num_videos)]

    def _with_action(self, action: Action) -> tuple[PlannedVideo, ...]:
        return tuple(video for video in self.videos if video.action == action)


@dataclass(frozen=True)
class _Decision:
    action: Action
    reason: Reason
    explanation: str
    replaces: tuple[StoredVideo, ...] = ()
    renames: tuple[StoredVideo, ...] = ()


def plan_ingest(
    wanted: Sequence[WantedVideo],
    present: Sequence[StoredVideo],
    rejected: Sequence[DeadLetter],
    recipe: Recipe,
    *,
    refusals: Sequence[Refusal] = (),
    missing: Collection[str] = (),
    policy: IngestPolicy | None = None,
) -> IngestPlan:
    """Decide what to do about every wanted video, in their order.

    present: what the dataset holds. rejected: what it refused before. refusals: what was refused on the way here.
    missing: sources of stored videos that were looked for, as ``tasks/gone.py`` says which, and are not there.
    """
    policy = policy or IngestPolicy()
    planner = _Planner(wanted, present, rejected, recipe, missing, policy)
    wanted_ids = {video.video_id for video in wanted}
    return IngestPlan(
        recipe=recipe,
        videos=planner.plan(wanted),
        refusals=tuple(refusals),
        gone=tuple(video for video in present if video.source in missing and video.video_id not in wanted_ids),
        prune=policy.prune,
    )


class _Planner:
    """Look-up tables for one plan."""

    def __init__(
        self,
        wanted: Sequence[WantedVideo],
        present: Sequence[StoredVideo],
        rejected: Sequence[DeadLetter],
        recipe: Recipe,
        missing: Collection[str],
        policy: IngestPolicy,
    ) -> None:
        self._recipe, self._recipe_hash, self._policy = recipe, recipe.hash(), policy
        self._present = present
        self._wanted_ids = {video.video_id for video in wanted}
        self._left = {video.item.uri for video in wanted} | set(missing)
        self._here = {(video.item.uri, video.video_id) for video in wanted}
        self._by_id = _grouped((video.video_id, video) for video in present)
        self._by_source = _grouped((video.source, video) for video in present)
        self._rejected = {
            letter.video_id: letter for letter in reversed(rejected) if letter.recipe_hash in (None, self._recipe_hash)
        }
        self._planned: dict[str, str] = {}

    def plan(self, wanted: Sequence[WantedVideo]) -> tuple[PlannedVideo, ...]:
        decisions = [self._decide_once(video) for video in wanted]
        given_up = {video.video_id for decision in decisions for video in decision.renames}
        names = ClipNames(video for video in self._present if video.video_id not in given_up)
        return tuple(
            PlannedVideo(
                wanted=video,
                action=decision.action,
                reason=decision.reason,
                explanation=decision.explanation,
                clip=video.item.clip
                if decision.action == "skip"
                else names.take(video.item.clip, video.video_id, decision.replaces),
                replaces=decision.replaces,
                renames=decision.renames,
            )
            for video, decision in zip(wanted, decisions, strict=True)
        )

    def _decide_once(self, wanted: WantedVideo) -> _Decision:
        if first := self._planned.get(wanted.video_id):
            return _Decision("skip", "duplicate", f"same bytes as {first}")
        stored = self._by_id.get(wanted.video_id, ())
        decision = self._decide(wanted, stored)
        if decision.reason != "copy":  # the video that it is a copy of may be still to come
            self._planned[wanted.video_id] = wanted.item.uri
        return decision

    def _decide(self, wanted: WantedVideo, stored: tuple[StoredVideo, ...]) -> _Decision:
        if stored and (elsewhere := stored[0].source) != wanted.item.uri and (elsewhere, wanted.video_id) in self._here:
            return _Decision("skip", "copy", f"copy: the dataset has the same bytes from {elsewhere}")
        if any(video.recipe_hash == self._recipe_hash for video in stored):
            return self._decide_stored(wanted, stored)
        if letter := self._rejected.get(wanted.video_id):
            return self._decide_rejected(letter, wanted, stored)
        return self._decide_build(wanted, stored)

    def _decide_stored(self, wanted: WantedVideo, stored: tuple[StoredVideo, ...]) -> _Decision:
        source = stored[0].source
        if source == wanted.item.uri:
            return _Decision("skip", "unchanged", "unchanged")
        if source in self._left:
            return _Decision("rename", "renamed", f"renamed: was {source}", renames=stored)
        return _Decision("skip", "copy", f"copy: the dataset has the same bytes from {source}")

    def _decide_rejected(self, letter: DeadLetter, wanted: WantedVideo, stored: tuple[StoredVideo, ...]) -> _Decision:
        attempts = f"{letter.attempts} attempt{'s' if letter.attempts != 1 else ''}"
        if not self._policy.tries_again(letter):
            return _Decision("skip", "rejected_before", f"rejected before: {letter.reason}, {attempts}")
        build = self._decide_build(wanted, stored)
        return replace(build, reason="tried_again", explanation=f"tried again after {letter.reason}, {attempts}")

    def _decide_build(self, wanted: WantedVideo, stored: tuple[StoredVideo, ...]) -> _Decision:
        if stored:
            before = stored[0].recipe
            explanation = f"recipe changed: {', '.join(recipe_difference(before, self._recipe)) or 'its hash'}"
            if not (part := rework(before, self._recipe)).everything:
                explanation += f" ({part})"
            return _Decision("ingest", "recipe_changed", explanation, stored)
        # bytes that moved to another wanted source are still wanted: only what is gone is replaced
        held = self._by_source.get(wanted.item.uri, ())
        if not held:
            return _Decision("ingest", "new", "new")
        replaces = tuple(video for video in held if video.video_id not in self._wanted_ids)
        return _Decision("ingest", "bytes_changed", "bytes changed", replaces)


def _grouped(pairs: Iterable[tuple[str, StoredVideo]]) -> dict[str, tuple[StoredVideo, ...]]:
    groups: dict[str, list[StoredVideo]] = {}
    for key, video in pairs:
        groups.setdefault(key, []).append(video)
    return {key: tuple(videos) for key, videos in groups.items()}
