from __future__ import annotations

import pytest

from tasks.identity import Recipe
from tasks.recipe_changes import PARTIAL_FIELDS, Rework, rework

STORED = Recipe(schema_version=1, gaps=(1, -1, 2, -2))


def _changed(**changes: object) -> Rework:
    return rework(STORED, Recipe.model_validate({**STORED.model_dump(), **changes}))


@pytest.mark.parametrize(
    ("changes", "jpeg", "gaps", "copied"),
    [
        ({}, False, (), (1, -1, 2, -2)),
        ({"jpeg_quality": 80}, True, (), (1, -1, 2, -2)),
        ({"gaps": (1, -1)}, False, (), (1, -1)),
        ({"gaps": (1, -1, 3)}, False, (3,), (1, -1)),
        ({"gaps": (4,)}, False, (4,), ()),
        ({"flow_estimator": "dis-fast"}, False, (1, -1, 2, -2), ()),
        ({"flow_weights_sha256": "a" * 64}, False, (1, -1, 2, -2), ()),
        ({"flow_estimator": "dis-fast", "gaps": (1, 3)}, False, (1, 3), ()),
        ({"jpeg_quality": 80, "gaps": (2, 3)}, True, (3,), (2,)),
    ],
)
def test_only_what_depends_on_a_changed_field_is_made_anew(
    changes: dict[str, object], jpeg: bool, gaps: tuple[int, ...], copied: tuple[int, ...]
) -> None:
    assert _changed(**changes) == Rework(everything=False, jpeg=jpeg, gaps=gaps, copied_gaps=copied)


@pytest.mark.parametrize("changes", [{"fps": 12.0}, {"max_side": 320}, {"schema_version": 2}])
def test_another_choice_or_size_of_frames_makes_everything_anew(changes: dict[str, object]) -> None:
    assert _changed(**changes) == Rework(everything=True, jpeg=True, gaps=STORED.gaps)
    assert _changed(**changes, jpeg_quality=80).everything


def test_a_field_that_nobody_thought_of_makes_everything_anew() -> None:
    assert set(Recipe.model_fields) >= PARTIAL_FIELDS
    others = {name: "something else" for name in Recipe.model_fields if name not in PARTIAL_FIELDS}
    for name, value in others.items():
        assert rework(STORED, STORED.model_copy(update={name: value})).everything, name


def test_footage_is_decoded_unless_columns_are_only_left_out() -> None:
    assert not _changed(gaps=(1,)).decodes
    assert _changed(gaps=(1, 3)).decodes
    assert _changed(jpeg_quality=80).decodes
    assert _changed(fps=12.0).decodes


def test_rework_says_what_it_does() -> None:
    assert str(_changed(gaps=(1,))) == "stored rows copied, nothing decoded"
    assert str(_changed(jpeg_quality=80, gaps=(1, 3))) == (
        "JPEG and optical flow of gaps 3 made anew, optical flow of gaps 1 copied"
    )
    assert str(_changed(flow_estimator="dis-fast", gaps=(1,))) == "optical flow of gaps 1 made anew, JPEG copied"
    assert str(_changed(fps=12.0)) == "everything made anew"
