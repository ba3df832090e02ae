"""Names of clips inside a dataset: no two alike, in any case of letters, since file systems may not tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.snapshot import StoredVideo


class ClipNames:
    """Gives out names that no other clip has.

    stored: the videos that keep their names. Renames are one transaction before all others, so the names that they give
    up are free at once. The name of a video that is replaced is free for the one that replaces it only, which may yet
    be refused.
    """

    def __init__(self, stored: Iterable[StoredVideo]) -> None:
        self._taken = {video.clip.casefold(): video.video_id for video in stored}

    def take(self, clip: str, video_id: str, replaces: Sequence[StoredVideo] = ()) -> str:
        """Return ``clip`` itself, with a piece of the video's identity when another video has that name."""
        free = {video_id, *(video.video_id for video in replaces)}
        if self._taken.get(clip.casefold(), video_id) not in free:
            clip = f"{clip}-{video_id[:8]}"
        self._taken[clip.casefold()] = video_id
        return clip
