"""Whether the footage that something was made of is still there, and still the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.errors import FootageError, InputError
from tasks.footage import FootageItem, discover
from tasks.identity import video_id

SourceState = Literal["same", "changed", "gone"]


@dataclass(frozen=True, kw_only=True)
class SourceCheck:
    """What became of a source. item: the footage to decode, where there is any; detail: for people."""

    state: SourceState
    detail: str
    item: FootageItem | None = None


def check_source(source: str, expected_id: str) -> SourceCheck:
    """Look for the footage at ``source`` and compare its identity with ``expected_id``; reads all of it once."""
    try:
        found = discover([source])
        item = next((item for item in found.items if item.uri == source), found.items[0])
        actual = video_id(item)
    except (InputError, FootageError) as error:
        return SourceCheck(state="gone", detail=str(error))
    if actual != expected_id:
        return SourceCheck(state="changed", detail=f"its SHA-256 is {actual} now, it was {expected_id}", item=item)
    return SourceCheck(state="same", detail="there, and the same bytes", item=item)
