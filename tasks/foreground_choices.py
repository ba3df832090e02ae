"""How segments become a foreground in an evaluation, and which of these ways see annotations.

Only a choice without annotations may decide anything; the others are there to be compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

LABEL_FREE = "label-free"
GROUND_TRUTH_PER_FRAME = "ground-truth-per-frame"
ORACLE_PER_CLIP = "oracle-per-clip"
ORACLE_PER_FRAME = "oracle-per-frame"

BORDER_RULE = "border-rule"
GROUND_TRUTH_PER_IMAGE = "ground-truth-per-image"
ORACLE_PER_IMAGE = "oracle-per-image"


@dataclass(frozen=True, kw_only=True)
class ForegroundChoice:
    """How segments became a foreground."""

    name: str
    title: str
    description: str
    uses_annotations: bool


FOREGROUND_CHOICES: dict[str, ForegroundChoice] = {
    choice.name: choice
    for choice in (
        ForegroundChoice(
            name=LABEL_FREE,
            title="label-free",
            description="one grouping of the segments per clip, chosen by motion and image border without labels",
            uses_annotations=False,
        ),
        ForegroundChoice(
            name=GROUND_TRUTH_PER_FRAME,
            title="ground truth per frame",
            description="segments merged to two groups by the features this report names, then the group that fits the "
            "annotation better, frame by frame: as the authors' code of GWM reports, which merges by DINO keys",
            uses_annotations=True,
        ),
        ForegroundChoice(
            name=ORACLE_PER_CLIP,
            title="oracle per clip",
            description="the grouping of each clip with the highest mean J: the most a clip-level rule can reach",
            uses_annotations=True,
        ),
        ForegroundChoice(
            name=ORACLE_PER_FRAME,
            title="oracle per frame",
            description="the best grouping of every single frame: the most that these segments allow",
            uses_annotations=True,
        ),
    )
}
"""Of videos, in the order in which they are shown; only the first may decide anything."""

IMAGE_FOREGROUND_CHOICES: dict[str, ForegroundChoice] = {
    choice.name: choice
    for choice in (
        ForegroundChoice(
            name=LABEL_FREE,
            title="label-free",
            description="one grouping of the segments per image, chosen by colour, centre and border without labels",
            uses_annotations=False,
        ),
        ForegroundChoice(
            name=BORDER_RULE,
            title="border rule",
            description="segments merged to two groups by the features this report names, then the group that touches "
            "the image's border less: as the authors' code of GWM does on images, which merges by DINO keys",
            uses_annotations=False,
        ),
        ForegroundChoice(
            name=GROUND_TRUTH_PER_IMAGE,
            title="ground truth per image",
            description="the same two groups, of which the one that fits the annotation better is taken",
            uses_annotations=True,
        ),
        ForegroundChoice(
            name=ORACLE_PER_IMAGE,
            title="oracle per image",
            description="the best grouping of every single image: the most that these segments allow",
            uses_annotations=True,
        ),
    )
}
"""Of still images, in the order in which they are shown; the first is the headline."""
