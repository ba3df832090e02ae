"""What ``gwm trace`` prints."""

from __future__ import annotations

from typing import Any

from tasks.trace import Link, Trace

_INDENT = 9  # the longest kind of link and two spaces


def chain_text(trace: Trace) -> str:
    """Return a chain, a few lines a link: its name, what is known of it, what is missing."""
    return "\n".join(line for link in trace.links for line in _lines(link))


def clip_rows(trace: Trace, max_clips: int) -> list[dict[str, Any]]:
    """Return a row for each of the first ``max_clips`` clips at the end of a chain."""
    return [
        {
            "clip": clip.clip,
            "frames": clip.num_frames,
            "video sha256": clip.video_id,
            "shards": " ".join(clip.shards),
            "source": clip.source,
        }
        for clip in trace.clips[:max_clips]
    ]


def _lines(link: Link) -> list[str]:
    lines = [f"{link.kind:<{_INDENT}}{link.name}"]
    if link.facts:
        lines.append(" " * _INDENT + " · ".join(f"{name} {value}" for name, value in link.facts.items()))
    if link.problem:
        lines.append(" " * _INDENT + f"missing: {link.problem}")
    return lines
