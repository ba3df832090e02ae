from __future__ import annotations

import pyarrow as pa
import pytest

from tasks.errors import ConfigError, DatasetError
from tasks.schema import FRAME_COLUMNS, flow_column, frame_schema, gap_of_column, gaps_of_schema, require_frame_columns


@pytest.mark.parametrize(("gap", "column"), [(1, "flow_p1"), (-1, "flow_m1"), (-12, "flow_m12")])
def test_gaps_have_columns(gap: int, column: str) -> None:
    assert flow_column(gap) == column
    assert gap_of_column(column) == gap


@pytest.mark.parametrize("column", ["jpeg", "flow_", "flow_x1", "flow_p", "flow_p1x", "p1"])
def test_other_columns_have_no_gap(column: str) -> None:
    assert gap_of_column(column) is None


def test_a_schema_has_the_rows_columns_and_one_per_gap() -> None:
    schema = frame_schema((3, -3), recipe_json="{}")
    assert schema.names == [*(name for name, _ in FRAME_COLUMNS), "flow_p3", "flow_m3"]
    assert schema.field("flow_m3").type == pa.binary()
    assert gaps_of_schema(schema.names) == (3, -3)
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
