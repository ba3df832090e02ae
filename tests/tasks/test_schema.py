from __future__ import annotations

import pyarrow as pa
import pytest

from tasks.errors import ConfigError, DatasetError
from tasks.schema import FRAME_COLUMNS, flow_column, frame_schema, require_frame_columns


@pytest.mark.parametrize(("gap", "column"), [(1, "flow_p1"), (-1, "flow_m1"), (-12, "flow_m12")])
def test_gaps_have_columns(gap: int, column: str) -> None:
    assert flow_column(gap) == column


def test_a_schema_has_the_rows_columns_and_one_per_gap() -> None:
    schema = frame_schema((3, -3), recipe_json="{}")
    assert schema.names == [*(name for name, _ in FRAME_COLUMNS), "flow_p3", "flow_m3"]
    assert schema.field("flow_m3").type == pa.binary()
    assert schema.metadata == {
        b"gwm.schema_version": b"2",
        b"gwm.recipe": b"{}",
        b"gwm.flow_steps_per_pixel": b"64",
    }
    assert frame_schema((1,)).metadata is None


@pytest.mark.parametrize("gaps", [(0, 1), (1, 1)])
def test_unusable_gaps_are_refused(gaps: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="gap"):
        frame_schema(gaps)


def test_a_foreign_table_is_refused() -> None:
    require_frame_columns(iter(frame_schema((1,)).names), "here")
    with pytest.raises(DatasetError, match="here: not a dataset"):
        require_frame_columns(["video_id"], "here")
