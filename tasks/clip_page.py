"""The pages that ``segment`` leaves beside its masks: one per clip, and one over all clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.adapt import AdaptationRecord
from tasks.footage import Rejection
from tasks.model_package import LoadedModel
from tasks.pages import curve, render


@dataclass(frozen=True, kw_only=True)
class PageRow:
    """Pictures of one frame, as data URIs by title."""

    frame: int
    seconds: float
    tiles: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ClipSummary:
    """What became of one clip.

    size: rows and columns. foreground, rule: which segments were taken, and by which label-free rule.
    shares: share of each frame that is foreground. adaptation: of the model to this clip; None where it was used as
    it is. crf: settings of the dense CRF that refined the masks; None where they are as the network's.
    """

    name: str
    source: str
    kind: str
    num_frames: int
    size: tuple[int, int]
    foreground: tuple[int, ...]
    rule: str
    shares: tuple[float, ...]
    rows: tuple[PageRow, ...]
    seconds: float = 0.0
    adaptation: AdaptationRecord | None = None
    crf: str | None = None

    @property
    def num_empty_frames(self) -> int:
        """Frames in which nothing was found."""
        return sum(share == 0 for share in self.shares)

    @property
    def mean_share(self) -> float:
        """Mean share of the frame that is foreground."""
        return sum(self.shares) / len(self.shares)

    @property
    def poster(self) -> str:
        """The picture that stands for the clip: the foreground in its middle."""
        return self.rows[len(self.rows) // 2].tiles["foreground"]


def render_clip(clip: ClipSummary, model: LoadedModel) -> str:
    """Return the page of one clip; its overlay and masks are linked, its pictures are inside."""
    return render(
        "clip.html",
        title=clip.name,
        clip=clip,
        model=model,
        curve=curve(clip.shares, label="share of the frame that is foreground"),
        columns=tuple(clip.rows[0].tiles),
    )


def render_overview(clips: Sequence[ClipSummary], rejections: Sequence[Rejection], model: LoadedModel) -> str:
    """Return the page over all clips of a run, with what was refused and why."""
    return render("clips.html", title="Segmented footage", clips=clips, rejections=rejections, model=model)
