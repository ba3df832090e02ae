"""Frame gaps as people write them: the name of a benchmark's preset, or a list."""

from __future__ import annotations

from model.optical_flow import GAP_PRESETS
from tasks.errors import InputError


def parse_gaps(text: str) -> tuple[int, ...]:
    """Return the gaps that ``davis``, ``fbms`` or ``1,-1,2,-2`` stand for; raises InputError for anything else."""
    if text in GAP_PRESETS:
        return tuple(GAP_PRESETS[text])
    try:
        gaps = tuple(int(part) for part in text.split(","))
    except ValueError:
        gaps = ()
    if not gaps or 0 in gaps or len(set(gaps)) != len(gaps):
        presets = ", ".join(GAP_PRESETS)
        raise InputError(f"gaps {text!r}: expected {presets}, or distinct numbers other than 0 such as 1,-1,2,-2")
    return gaps
