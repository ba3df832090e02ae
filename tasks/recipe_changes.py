"""What another recipe makes anew of rows that are stored already, and what is copied byte for byte.

==================================  ==========================================
a change of                         makes anew
==================================  ==========================================
``jpeg_quality``                    the JPEGs
``flow_estimator``, its weights     the optical flow of every gap
``gaps``                            the optical flow of gaps that were added
anything else                       everything: which frames there are, or their size
==================================  ==========================================

Optical flow is estimated on decoded frames, never on stored JPEGs, and that of one gap does not depend on which other
gaps are stored. So what is made anew needs the footage again, and what is not needs nothing but the stored rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.identity import Recipe, recipe_difference

_JPEG = "jpeg_quality"
_ESTIMATOR = frozenset({"flow_estimator", "flow_weights_sha256"})
_GAPS = "gaps"

PARTIAL_FIELDS = frozenset({_JPEG, _GAPS, *_ESTIMATOR})
"""Fields of a recipe of which some columns are independent. A field that is not named here decides every column."""


@dataclass(frozen=True, kw_only=True)
class Rework:
    """Which columns of stored rows are made anew; the others are copied.

    everything: nothing of the stored rows can be used.
    gaps: frame gaps whose optical flow is computed; copied_gaps: those whose stored flow is right.
    """

    everything: bool
    jpeg: bool
    gaps: tuple[int, ...]
    copied_gaps: tuple[int, ...] = ()

    @property
    def decodes(self) -> bool:
        """Whether the footage is decoded again."""
        return self.everything or self.jpeg or bool(self.gaps)

    def __str__(self) -> str:
        """What is done, for people."""
        if self.everything:
            return "everything made anew"
        made = ["JPEG"] * self.jpeg + [f"optical flow of gaps {_listed(self.gaps)}"] * bool(self.gaps)
        if not made:
            return "stored rows copied, nothing decoded"
        copied = ["JPEG"] * (not self.jpeg) + [f"optical flow of gaps {_listed(self.copied_gaps)}"] * bool(
            self.copied_gaps
        )
        return f"{' and '.join(made)} made anew" + (f", {' and '.join(copied)} copied" if copied else "")


def rework(stored: Recipe, wanted: Recipe) -> Rework:
    """Decide which columns of rows made with ``stored`` must be made anew to be rows of ``wanted``."""
    changed = set(recipe_difference(stored, wanted))
    if changed - PARTIAL_FIELDS:
        return Rework(everything=True, jpeg=True, gaps=wanted.gaps)
    kept = () if changed & _ESTIMATOR else tuple(gap for gap in wanted.gaps if gap in stored.gaps)
    added = tuple(gap for gap in wanted.gaps if gap not in kept)
    return Rework(everything=False, jpeg=_JPEG in changed, gaps=added, copied_gaps=kept)


def _listed(gaps: tuple[int, ...]) -> str:
    return ", ".join(str(gap) for gap in gaps)
