"""What ``gwm datasets`` and ``gwm show`` print, as rows of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.catalog import list_versions
from tasks.describe import DatasetDescription, RecipeLine
from tasks.snapshot import DatasetVersion

HISTORY_SHOWN = 5  # versions; `gwm datasets` lists all
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, kw_only=True)
class ShownDataset:
    """A line of totals, and tables by title."""

    headline: str
    tables: dict[str, list[dict[str, Any]]]


def describe_versions(uri: str) -> list[dict[str, Any]]:
    """Return a row per version of a dataset, oldest first; raises DatasetError when there is none."""
    return version_rows(list_versions(uri))


def version_rows(versions: Sequence[DatasetVersion]) -> list[dict[str, Any]]:
    """Return a row per version."""
    return [
        {
            "version": version.version,
            "time": version.time.isoformat(timespec="seconds"),
            "videos": version.num_videos,
            "clips": version.num_clips,
            "frames": version.num_frames,
            "operation": version.operation,
        }
        for version in versions
    ]


def describe(found: DatasetDescription, *, max_clips: int) -> ShownDataset:
    """Return what ``gwm show`` prints; of the clips at most the first ``max_clips``."""
    measured = f", measured on {found.num_measured_shards} of {found.num_shards} shards"
    columns = "bytes by column" + (measured if found.num_measured_shards < found.num_shards else "")
    clips = f"clips ({min(max_clips, len(found.clips))} of {len(found.clips)})"
    before = [version for version in found.history if version.version <= found.version.version][-HISTORY_SHOWN:]
    return ShownDataset(
        headline=headline(found),
        tables={
            "recipes": [_recipe_row(line) for line in found.recipes],
            clips: _clip_rows(found, max_clips),
            columns: [
                {"column": line.column, "size": readable_bytes(line.num_bytes), "share": f"{100 * line.share:.1f} %"}
                for line in found.columns
            ],
            "rejected": [
                {
                    "reason": line.reason,
                    "sources": line.num_sources,
                    "attempts": line.attempts,
                    "last seen": line.last_seen.isoformat(timespec="seconds"),
                }
                for line in found.rejected
            ],
            f"history up to version {found.version.version}": version_rows(before),
        },
    )


def headline(found: DatasetDescription) -> str:
    """Return the totals in a few lines."""
    version = found.version
    newest = "the newest" if version.version == found.newest_version else f"the newest is {found.newest_version}"
    rejected = sum(line.num_sources for line in found.rejected)
    return (
        f"{found.uri} version {version.version} ({newest}), made {version.time.isoformat(timespec='seconds')} "
        f"by {version.operation}\n"
        f"{len(found.clips)} clips of {found.num_videos} videos, {found.num_frames} frames, "
        f"{readable_bytes(found.num_bytes)} in {found.num_shards} shards, "
        f"{readable_bytes(found.num_bytes / max(found.num_frames, 1))} a frame; {rejected} sources rejected\n"
        f"optical flow over gaps {', '.join(map(str, found.gaps)) or 'none that all clips have'}"
    )


def readable_bytes(number: float) -> str:
    """Return a number of bytes with three digits, in units of 1000."""
    unit = 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 or number >= 99.5 else f"{number:.3g} {_UNITS[unit]}"


def _recipe_row(line: RecipeLine) -> dict[str, Any]:
    recipe = line.recipe
    return {
        "recipe": line.recipe_hash[:12],
        "clips": line.num_clips,
        "frames": line.num_frames,
        "flow": recipe.flow_estimator,
        "weights": (recipe.flow_weights_sha256 or "")[:12],
        "gaps": ",".join(map(str, recipe.gaps)),
        "fps": recipe.fps or "all",
        "max side": recipe.max_side or "as it is",
        "JPEG": recipe.jpeg_quality,
        "schema": recipe.schema_version,
    }


def _clip_rows(found: DatasetDescription, max_clips: int) -> list[dict[str, Any]]:
    return [
        {
            "clip": clip.clip,
            "frames": clip.num_frames,
            "size": f"{clip.width}x{clip.height}",
            "bytes": readable_bytes(clip.num_bytes),
            "motion px": clip.motion_px,
            "video": clip.video_id[:12],
            "recipe": clip.recipe_hash[:12],
            "source": clip.source,
        }
        for clip in found.clips[:max_clips]
    ]
