"""Roles found in a dataset: the segment that moves is counted, in every clip that moves, and travels with the model."""

from __future__ import annotations

from model.segment_roles import SegmentRoles
from tasks.catalog import open_dataset
from tasks.ingest import prepare_ingest, run_ingest
from tasks.model_package import load_model, publish_copy
from tasks.segment_roles import find_roles, spread
from tasks.settings import Settings
from tasks.storage import location
from tests.tasks.moving_square import ColourMethod, square_clip, write_davis
from tests.tasks.small_footage import RECIPE
from tests.tasks.tiny_models import saved_model


def test_numbers_are_spread_evenly() -> None:
    assert spread(0, 4) == []
    assert spread(3, 6) == [0, 1, 2]
    assert spread(11, 3) == [0, 5, 10]


def test_the_segment_that_moves_is_the_foreground_of_every_clip(ray_cluster: None, tmp_path) -> None:
    root = write_davis(
        tmp_path / "davis", {name: square_clip(8, seed=seed) for seed, name in enumerate(("dog", "libby"))}
    )
    dataset = str(tmp_path / "dataset")
    run_ingest(prepare_ingest([str(root)], dataset, RECIPE), dataset, Settings(ingest_actors=1))
    roles = find_roles(ColourMethod(), [open_dataset(dataset).pin])
    assert roles.num_clips == 2
    assert roles.num_foreground[1] == 2  # the square is segment 1, as evaluation of these clips finds too
    assert sum(roles.num_foreground) == 2


def test_roles_travel_with_the_model(tmp_path) -> None:
    source, target = location(saved_model(tmp_path / "checkpoint")), location(tmp_path / "model")
    assert load_model(source).roles is None  # a checkpoint, or a model of an earlier release
    num_segments = load_model(source).method.num_segments
    roles = SegmentRoles(num_clips=5, num_foreground=(4, *[0] * (num_segments - 1)))
    publish_copy(source, target, checkpoint="last step", roles=roles)
    assert load_model(target).roles == roles
