"""The rows of a dataset: one per frame, with one optical flow column per frame gap.

A row says which video it belongs to (``video_id`` is the SHA-256 of the footage), how it was made
(``recipe_hash`` and the whole ``recipe`` as JSON), and holds the frame as JPEG, its annotation as PNG where
there is one, and the optical flow to the frame ``gap`` later as ``tasks/flow_codec.py`` encodes it;
null where that frame is outside the clip. A reader fetches only the columns of the gap it uses.

A clip is one shot of a video, and frames count from 0 in each. ``shot`` came with schema version 2: what version 1
wrote has no such column, and all its videos are one shot, number 0. So tables of both, mixed or not, stay readable.

The recipe is a column, the same in every row of a video, for the sake of the Delta log: minimum and maximum
of a column are kept there per file, survive checkpoints of the log, and so tell how every video was made
without opening a single file. It also stands in the footer of every Parquet file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from tasks.errors import ConfigError, DatasetError
from tasks.flow_codec import STEPS_PER_PIXEL

SCHEMA_VERSION = 2
"""Part of every recipe: raise it when the meaning of a stored column changes, and ingest rebuilds."""

FRAME_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("video_id", pa.string()),
    ("recipe_hash", pa.string()),
    ("recipe", pa.string()),
    ("clip", pa.string()),
    ("source", pa.string()),
    ("shot", pa.int32()),
    ("frame_index", pa.int32()),
    ("time_seconds", pa.float64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("jpeg", pa.binary()),
    ("annotation", pa.binary()),
)
"""Columns of every dataset; the columns of its gaps follow."""

LATER_COLUMNS = frozenset({"shot"})
"""Columns that schema version 1 did not have."""


def flow_column(gap: int) -> str:
    """Name of the column that holds the optical flow over ``gap`` frames, such as flow_p2 and flow_m2."""
    if gap == 0:
        raise ConfigError("gap=0: a frame has no motion to itself; use a gap such as 1 or -1")
    return f"flow_{'p' if gap > 0 else 'm'}{abs(gap)}"


def frame_schema(gaps: Sequence[int], *, recipe_json: str | None = None) -> pa.Schema:
    """Arrow schema of the rows of a dataset that has optical flow over ``gaps``.

    With ``recipe_json`` the schema metadata tells how the rows were made and in which unit flow is stored.
    Raises ConfigError when a gap is 0 or repeated.
    """
    if len(set(gaps)) != len(gaps):
        raise ConfigError(f"gaps={tuple(gaps)}: expected each frame gap once, such as (1, -1, 2, -2)")
    columns = [*FRAME_COLUMNS, *((flow_column(gap), pa.binary()) for gap in gaps)]
    return pa.schema([pa.field(name, kind) for name, kind in columns], metadata=_metadata(recipe_json))


def _metadata(recipe_json: str | None) -> dict[str, str] | None:
    if recipe_json is None:
        return None
    return {
        "gwm.schema_version": str(SCHEMA_VERSION),
        "gwm.recipe": recipe_json,
        "gwm.flow_steps_per_pixel": str(STEPS_PER_PIXEL),
    }


def require_frame_columns(columns: Iterable[str], place: str) -> None:
    """Raise DatasetError unless all columns that datasets always had are among ``columns``."""
    have = set(columns) | LATER_COLUMNS
    missing = [name for name, _ in FRAME_COLUMNS if name not in have]
    if missing:
        raise DatasetError(f"{place}: not a dataset, columns {missing} are missing; give the folder that ingest wrote")
