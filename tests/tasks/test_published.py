"""Published numbers: complete, with how they came about, and rows that average to what the papers print."""

from __future__ import annotations

import numpy as np
import pytest

from model.metrics import average
from tasks.benchmarks import DAVIS16_VALIDATION, FBMS59_TEST, SEGTRACKV2_SEQUENCES
from tasks.benchmarks.davis16 import _NUM_FRAMES as DAVIS16_FRAMES
from tasks.benchmarks.fbms59 import _NUM_ANNOTATED
from tasks.benchmarks.segtrackv2 import _COPIES
from tasks.benchmarks.segtrackv2 import _NUM_FRAMES as SEGTRACKV2_FRAMES
from tasks.published import IMAGE_ROWS, PUBLISHED, PublishedColumn, published_columns, published_image_rows

SEQUENCES = {"davis16": DAVIS16_VALIDATION, "segtrackv2": SEGTRACKV2_SEQUENCES, "fbms59": FBMS59_TEST}
SMALLER_COPY, LARGER_COPY = ({**SEGTRACKV2_FRAMES, **counts} for counts in _COPIES.values())


def column(benchmark: str, name: str) -> PublishedColumn:
    return next(column for column in PUBLISHED[benchmark] if column.name == name)


@pytest.mark.parametrize("benchmark", PUBLISHED)
def test_every_column_says_how_it_came_about(benchmark):
    for found in PUBLISHED[benchmark]:
        assert 0.4 < found.overall < 0.85
        assert set(found.per_sequence) in (set(), set(SEQUENCES[benchmark]))
        assert all(0 < value < 1 for value in found.per_sequence.values())
        assert all((found.source, found.foreground, found.checkpoint, found.protocol))
        assert not found.label_free or "ground truth" not in found.foreground
    assert published_columns("rendered") == ()


@pytest.mark.parametrize(
    ("benchmark", "name", "num_frames", "protocol", "printed"),
    [
        ("davis16", "GWM, MaskFormer + DINO", DAVIS16_FRAMES, "gwm", 0.795),
        ("davis16", "GWM, MaskFormer + DINO, CRF", DAVIS16_FRAMES, "gwm", 0.8072),
        ("davis16", "IMAS + CRF", DAVIS16_FRAMES, "rcf", 0.798),
        ("segtrackv2", "GWM, MaskFormer + DINO", LARGER_COPY, "gwm-frames", 0.783),
        ("segtrackv2", "IMAS + CRF", SMALLER_COPY, "rcf", 0.727),
        ("fbms59", "IMAS + CRF", _NUM_ANNOTATED, "rcf", 0.690),
    ],
)
def test_rows_average_to_the_printed_number(benchmark, name, num_frames, protocol, printed):
    found = column(benchmark, name)
    scores = {sequence: [value] * num_frames[sequence] for sequence, value in found.per_sequence.items()}
    assert average(scores, protocol) == pytest.approx(printed, abs=6e-4)
    assert found.overall == pytest.approx(printed, abs=4e-3)


def test_rows_of_fbms59_average_over_frames_that_have_a_next_one():
    """The last annotated frame is the video's last in all videos but marple4: 338 frames of 367."""
    for name, printed in (("GWM, MaskFormer + DINO", 0.7737), ("GWM, MaskFormer + DINO, CRF", 0.7836)):
        counts = {name: count - (name != "marple4") for name, count in _NUM_ANNOTATED.items()}
        assert sum(counts.values()) == 338
        rows = column("fbms59", name).per_sequence
        assert np.average([rows[name] for name in counts], weights=list(counts.values())) == pytest.approx(
            printed, abs=6e-4
        )


def test_images_say_how_they_came_about():
    for benchmark, rows in IMAGE_ROWS.items():
        assert published_image_rows(benchmark) == rows
        for row in rows:
            measures = (row.accuracy, row.j, row.f_beta, row.max_f_beta, row.mean_absolute_error)
            assert any(value is not None for value in measures)
            assert all(0 < value < 1 for value in measures if value is not None)
            assert all((row.source, row.foreground, row.checkpoint))
        printed = [row for row in rows if row.max_f_beta is not None and row.f_beta is not None]
        assert all(row.max_f_beta >= row.f_beta for row in printed)
    assert published_image_rows("davis16") == ()
