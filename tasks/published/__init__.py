"""Numbers from papers, for the column beside ours: each with its source and with how it came about.

They are no targets of equal footing: GWM's were chosen with the labels that they are scored on, twice.
"""

from __future__ import annotations

from tasks.published.davis16 import DAVIS16_COLUMNS
from tasks.published.fbms59 import FBMS59_COLUMNS
from tasks.published.images import IMAGE_ROWS
from tasks.published.segtrackv2 import SEGTRACKV2_COLUMNS
from tasks.published.types import PublishedColumn, PublishedImageRow

PUBLISHED: dict[str, tuple[PublishedColumn, ...]] = {
    "davis16": DAVIS16_COLUMNS,
    "segtrackv2": SEGTRACKV2_COLUMNS,
    "fbms59": FBMS59_COLUMNS,
}
"""By video benchmark; a benchmark without published numbers is absent."""


def published_columns(benchmark: str) -> tuple[PublishedColumn, ...]:
    """Return the published numbers of a video benchmark, none when there are none."""
    return PUBLISHED.get(benchmark, ())


def published_image_rows(benchmark: str) -> tuple[PublishedImageRow, ...]:
    """Return the published numbers of a benchmark of images, none when there are none."""
    return IMAGE_ROWS.get(benchmark, ())


__all__ = [
    "IMAGE_ROWS",
    "PUBLISHED",
    "PublishedColumn",
    "PublishedImageRow",
    "published_columns",
    "published_image_rows",
]
