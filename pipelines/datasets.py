"""What ``gwm datasets`` shows."""

from __future__ import annotations

from typing import Any

from tasks.catalog import list_versions


def describe_versions(uri: str) -> list[dict[str, Any]]:
    """Return a row per version of a dataset, oldest first; raises DatasetError when there is none."""
    return [
        {
            "version": version.version,
            "time": version.time.isoformat(timespec="seconds"),
            "videos": version.num_videos,
            "frames": version.num_frames,
            "operation": version.operation,
        }
        for version in list_versions(uri)
    ]
