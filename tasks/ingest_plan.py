"""What an ingest will do to each video, and why: decided from values alone, before any frame is decoded.

The identity of a video is content x recipe. Compared with what the dataset holds and with what it refused before:

========================================  ========  ============================================
the dataset has                           action    reason
========================================  ========  ============================================
the same bytes, the same recipe           skip      unchanged; renamed when the source differs
the same bytes, another recipe            ingest    recipe changed: the fields that differ
other bytes from this source              ingest    bytes changed
nothing, and refused these bytes before   skip      rejected before: reason, number of attempts
nothing                                   ingest    new
========================================  ========  ============================================

Refusals that lie in the footage are final; those that may lie in the circumstances are tried again a few times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tasks.dead_letters import DeadLetter, Refusal
from tasks.errors import InputError, RejectionReason
from tasks.footage import FootageItem
from tasks.identity import Recipe, recipe_difference
from tasks.snapshot import StoredVideo

Action = Literal["ingest", "skip"]
Reason = Literal[
    "new", "bytes_changed", "recipe_changed", "tried_again", "unchanged", "renamed", "duplicate", "rejected_before"
]

PASSING_REASONS: frozenset[RejectionReason] = frozenset({"crashed", "timeout", "internal"})
"""Refusals that another run may not meet: the machine or we, not the footage, may be to blame."""

MAX_ATTEMPTS = 3
"""Runs in which footage refused for a passing reason is tried before it is skipped."""


@dataclass(frozen=True, kw_only=True)
class WantedVideo:
    """Footage that was found, and the identity of its bytes."""

    item: FootageItem
    video_id: str


@dataclass(frozen=True, kw_only=True)
class PlannedVideo:
    """What will be done about one piece of footage.

    explanation: the reason for people, with its particulars.
    clip: name to store it under, unlike any other of the dataset.
    replaces: stored videos that must vanish when this one appears.
    """

    wanted: WantedVideo
    action: Action
    reason: Reason
    explanation: str
    clip: str
    replaces: tuple[StoredVideo, ...] = ()

    @property
    def source(self) -> str:
        """Where the footage lies."""
        return self.wanted.item.uri


@dataclass(frozen=True, kw_only=True)
class IngestPlan:
    """What will be done about each video, and what could not even be looked at."""

    recipe: Recipe
    videos: tuple[PlannedVideo, ...]
    refusals: tuple[Refusal, ...] = ()

    @property
    def to_ingest(self) -> tuple[PlannedVideo, ...]:
        """Videos that will be decoded."""
        return tuple(video for video in self.videos if video.action == "ingest")

    @property
    def to_skip(self) -> tuple[PlannedVideo, ...]:
        """Videos that need nothing, or get nothing."""
        return tuple(video for video in self.videos if video.action == "skip")

    def batches(self, num_videos: int) -> list[tuple[PlannedVideo, ...]]:
        """Videos to ingest in groups of at most ``num_videos``, each of which will be one transaction."""
        if num_videos < 1:
            raise InputError(f"batches({num_videos}): expected at least one video per batch")
        todo = self.to_ingest
        return [todo[start : start + num_videos] for start in range(0, len(todo), num_videos)]


@dataclass(frozen=True)
class _Decision:
    action: Action
    reason: Reason
    explanation: str
    replaces: tuple[StoredVideo, ...] = ()


def plan_ingest(
    wanted: Sequence[WantedVideo],
    present: Sequence[StoredVideo],
    rejected: Sequence[DeadLetter],
    recipe: Recipe,
    *,
    refusals: Sequence[Refusal] = (),
    retry_rejected: bool = False,
) -> IngestPlan:
    """Decide what to do about every wanted video, in their order.

    present: what the dataset holds. rejected: what it refused before. refusals: what was refused on the way here.
    ``retry_rejected`` tries footage again however often and for whatever reason it was refused.
    """
    planner = _Planner(wanted, present, () if retry_rejected else rejected, recipe)
    videos = [planner.plan(video) for video in wanted]
    return IngestPlan(recipe=recipe, videos=tuple(videos), refusals=tuple(refusals))


class _Planner:
    """Look-up tables for one plan."""

    def __init__(
        self,
        wanted: Sequence[WantedVideo],
        present: Sequence[StoredVideo],
        rejected: Sequence[DeadLetter],
        recipe: Recipe,
    ) -> None:
        self._recipe, self._recipe_hash = recipe, recipe.hash()
        self._wanted_ids = {video.video_id for video in wanted}
        self._by_id = {video.video_id: video for video in present}
        self._by_source = {video.source: video for video in present}
        self._rejected = {
            letter.video_id: letter for letter in reversed(rejected) if letter.recipe_hash in (None, self._recipe_hash)
        }
        self._planned: dict[str, str] = {}
        self._clips = {video.clip.casefold(): video.video_id for video in present}

    def plan(self, wanted: WantedVideo) -> PlannedVideo:
        decision = self._decide(wanted)
        self._planned.setdefault(wanted.video_id, wanted.item.uri)
        clip = self._clip_of(wanted, decision) if decision.action == "ingest" else wanted.item.clip
        return PlannedVideo(
            wanted=wanted,
            action=decision.action,
            reason=decision.reason,
            explanation=decision.explanation,
            clip=clip,
            replaces=decision.replaces,
        )

    def _decide(self, wanted: WantedVideo) -> _Decision:
        if first := self._planned.get(wanted.video_id):
            return _Decision("skip", "duplicate", f"same bytes as {first}")
        stored = self._by_id.get(wanted.video_id)
        if stored is not None and stored.recipe_hash == self._recipe_hash:
            if stored.source == wanted.item.uri:
                return _Decision("skip", "unchanged", "unchanged")
            return _Decision("skip", "renamed", f"renamed: was {stored.source}")
        if letter := self._rejected.get(wanted.video_id):
            return self._decide_rejected(letter, wanted, stored)
        return self._decide_build(wanted, stored)

    def _decide_rejected(self, letter: DeadLetter, wanted: WantedVideo, stored: StoredVideo | None) -> _Decision:
        attempts = f"{letter.attempts} attempt{'s' if letter.attempts != 1 else ''}"
        if letter.reason not in PASSING_REASONS or letter.attempts >= MAX_ATTEMPTS:
            return _Decision("skip", "rejected_before", f"rejected before: {letter.reason}, {attempts}")
        build = self._decide_build(wanted, stored)
        return replace(build, reason="tried_again", explanation=f"tried again after {letter.reason}, {attempts}")

    def _decide_build(self, wanted: WantedVideo, stored: StoredVideo | None) -> _Decision:
        if stored is not None:
            fields = ", ".join(recipe_difference(stored.recipe, self._recipe)) or "its hash"
            return _Decision("ingest", "recipe_changed", f"recipe changed: {fields}", (stored,))
        before = self._by_source.get(wanted.item.uri)
        if before is None:
            return _Decision("ingest", "new", "new")
        # bytes that moved to another wanted source are still wanted: only what is gone is replaced
        replaces = () if before.video_id in self._wanted_ids else (before,)
        return _Decision("ingest", "bytes_changed", "bytes changed", replaces)

    def _clip_of(self, wanted: WantedVideo, decision: _Decision) -> str:
        """The clip's name, with a piece of its identity when another stored or planned clip has it in any case."""
        clip = wanted.item.clip
        free = {wanted.video_id, *(video.video_id for video in decision.replaces)}
        if self._clips.get(clip.casefold(), wanted.video_id) not in free:
            clip = f"{clip}-{wanted.video_id[:8]}"
        self._clips[clip.casefold()] = wanted.video_id
        return clip
