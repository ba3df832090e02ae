"""The rendered footage: its geometry against closed forms, its pictures against its flow, its files against crashes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tasks.rendering.choreography import MAX_CAMERA_SPEED, MIN_MOVING_SPEED, plan_tracks
from tasks.rendering.motion import MARGIN_FRAMES, SAMPLES_PER_FRAME
from tasks.rendering.noise import Canvas, cells, fractal
from tasks.rendering.renderer import render_frame
from tasks.rendering.scene import Scene, exact_flow, object_mask, surface_at
from tasks.rendering.stages import STAGES, build_scene
from tests.rendered_scenes import KINDS, SIZE, small_scenes


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return small_scenes()


def warp_back(image: npt.NDArray[np.uint8], flow: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    return cv2.remap(image, x + flow[0].astype(np.float32), y + flow[1].astype(np.float32), cv2.INTER_CUBIC)


# geometry


@pytest.mark.parametrize("kind", KINDS)
def test_part_maps_invert_each_other(scenes: dict[str, Scene], kind: str) -> None:
    scene = scenes[kind]
    points = scene.pixel_grid()
    for time in (0.0, 3.37, 6.0):
        for part, material in zip(scene.actor.parts, scene.frame_to_parts(points, time), strict=True):
            back = scene.part_to_frame(part, material, time)
            near = np.hypot(*material) < scene.actor.reach
            assert max(np.abs(back[0] - points[0])[near].max(), np.abs(back[1] - points[1])[near].max()) < 2e-3


@pytest.mark.parametrize("kind", KINDS)
def test_background_flow_is_the_closed_form_of_a_layer(scenes: dict[str, Scene], kind: str) -> None:
    """Every background pixel moves by the similarity of one of the layers, written out here in complex numbers."""
    scene = scenes[kind]
    flow, _ = exact_flow(scene, 4, 1)
    background = ~object_mask(scene, 4.0)
    x, y = scene.pixel_grid()
    height, width = scene.size
    pixel = (x - (width - 1) / 2) + 1j * (y - (height - 1) / 2)
    scale = height / 216
    before, after = scene.camera_track.camera(4.0), scene.camera_track.camera(5.0)
    errors = []
    for layer in scene.layers:
        travel = layer.parallax * ((before.x - after.x) + 1j * (before.y - after.y))
        units = pixel / (scale * before.zoom) * np.exp(1j * before.roll) + travel
        moved = units * scale * after.zoom * np.exp(-1j * after.roll)
        errors.append(np.abs(moved - pixel - (flow[0] + 1j * flow[1])))
    assert np.min(errors, axis=0)[background].max() < 1e-3
    assert all((np.argmin(errors, axis=0)[background] == n).any() for n in range(len(scene.layers)))


@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward_flow_cancel(scenes: dict[str, Scene], kind: str) -> None:
    scene = scenes[kind]
    forward, valid = exact_flow(scene, 5, 1)
    backward, _ = exact_flow(scene, 6, -1)
    round_trip = forward + np.stack([warp_back(channel, forward) for channel in backward])
    inner = cv2.erode(valid.astype(np.uint8), np.ones((5, 5))) > 0
    error = np.hypot(*round_trip)[inner]
    assert np.median(error) < 0.005
    assert np.percentile(error, 97) < 0.15  # the rest lies at outlines, where interpolation mixes two motions


@pytest.mark.parametrize("kind", KINDS)
def test_warping_by_the_exact_flow_restores_the_frame(scenes: dict[str, Scene], kind: str) -> None:
    scene = scenes[kind]
    first, second = (render_frame(scene, t, effects=False) for t in (5, 6))
    flow, valid = exact_flow(scene, 5, 1)
    mask = object_mask(scene, 5.0)
    gradient = np.ones((3, 3), np.uint8)
    outline = cv2.morphologyEx(
        surface_at(scene, scene.pixel_grid(), 5.0).astype(np.uint8), cv2.MORPH_GRADIENT, gradient
    )
    restored = np.abs(warp_back(second, flow).astype(float) - first).mean(-1)
    unmoved = np.abs(second.astype(float) - first).mean(-1)
    for region in (mask, ~mask):
        inside = region & valid & (outline == 0)
        assert restored[inside].mean() < 6  # of 255: what resampling fine texture costs
        assert restored[inside].mean() < 0.4 * unmoved[inside].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_mask_is_the_support_of_the_objects_motion(scenes: dict[str, Scene], kind: str) -> None:
    """The mask, found without looking at it: where the flow is not that of any layer."""
    scene = scenes[kind]
    found, known = [], []
    for frame in range(0, 7, 2):
        flow, _ = exact_flow(scene, frame, 1)
        points = scene.pixel_grid()
        own = np.ones(scene.size, bool)
        for layer in scene.layers:
            there = np.linalg.inv(scene.frame_to_layer(layer.parallax, frame + 1.0)) @ scene.frame_to_layer(
                layer.parallax, float(frame)
            )
            u, v = (there[i, 0] * points[0] + there[i, 1] * points[1] + there[i, 2] - points[i] for i in (0, 1))
            own &= np.hypot(flow[0] - u, flow[1] - v) > 0.02
        found.append(own)
        known.append(object_mask(scene, float(frame)))
    together, either = np.logical_and(found, known).sum(), np.logical_or(found, known).sum()
    assert not (np.array(found) & ~np.array(known)).any()
    assert together / either > 0.9  # a few object points always move like a layer: those a turn leaves in place


def test_hidden_and_departed_points_are_not_valid(scenes: dict[str, Scene]) -> None:
    scene = scenes["koi"]
    flow, valid = exact_flow(scene, 5, 1)
    points = scene.pixel_grid()
    column, row = points[0] + flow[0], points[1] + flow[1]
    outside = (column < 0) | (column > SIZE[1] - 1) | (row < 0) | (row > SIZE[0] - 1)
    assert outside.any()
    assert not valid[outside].any()
    next_mask = object_mask(scene, 6.0)[
        np.clip(np.rint(row), 0, SIZE[0] - 1).astype(int), np.clip(np.rint(column), 0, SIZE[1] - 1).astype(int)
    ]
    covered = next_mask & ~object_mask(scene, 5.0)
    deep = covered & (cv2.erode((covered).astype(np.uint8), np.ones((3, 3))) > 0)
    assert not valid[deep].any()
    assert 0.9 < valid.mean() < 1


# choreography


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_plans_move_stop_and_stay_in_the_frame(kind: str, seed: int) -> None:
    moves = STAGES[kind].moves
    plan = plan_tracks(np.random.default_rng(seed), moves, num_frames=40, frame_units=(384, 216))
    shown = slice(MARGIN_FRAMES * SAMPLES_PER_FRAME, -MARGIN_FRAMES * SAMPLES_PER_FRAME)
    actor = {name: values[shown] for name, values in plan.actor.curves.items()}
    camera = {name: values[shown] for name, values in plan.camera.curves.items()}
    camera_speed = np.hypot(np.gradient(camera["x"]), np.gradient(camera["y"])) * SAMPLES_PER_FRAME
    assert camera_speed.max() < 1.1 * MAX_CAMERA_SPEED
    assert (actor["speed"] > MIN_MOVING_SPEED).mean() > 0.5
    assert (actor["speed"] < 0.5).sum() >= 1.5 * SAMPLES_PER_FRAME, "never stops"
    assert np.abs(actor["x"] - camera["x"]).max() < 384 / 2 - 0.8 * moves.extent[0]
    assert np.abs(actor["y"] - camera["y"]).max() < 216 / 2 - 0.8 * moves.extent[1]
    heading = np.unwrap(np.arctan2(np.gradient(actor["y"]), np.gradient(actor["x"])))
    assert np.ptp(heading) > 0.5, "never turns"


@pytest.mark.parametrize("kind", KINDS)
def test_object_covers_between_6_and_25_percent(kind: str) -> None:
    for seed in (1, 2):
        scene = build_scene(kind, name=kind, seed=(seed, 0), num_frames=40, size=(108, 192))
        shares = [object_mask(scene, float(t)).mean() for t in range(0, 40, 6)]
        assert min(shares) > 0.06
        assert max(shares) < 0.25


# pictures


def test_same_seed_same_frame_other_seed_other_frame() -> None:
    def frame(seed: int) -> npt.NDArray[np.uint8]:
        scene = build_scene("jelly", name="jelly", seed=(seed, 0), num_frames=4, size=(72, 128))
        return render_frame(scene, 2)

    np.testing.assert_array_equal(frame(5), frame(5))
    assert np.abs(frame(5).astype(int) - frame(6)).mean() > 10


def test_colour_alone_does_not_tell_object_from_background(scenes: dict[str, Scene]) -> None:
    """Object and background share colours: the best histogram classifier is far from perfect in most scenes."""
    overlaps = []
    for scene in scenes.values():
        coarse = (render_frame(scene, 3) // 64).astype(int) @ np.array([16, 4, 1])
        mask = object_mask(scene, 3.0)
        inside, outside = (np.bincount(coarse[m], minlength=64) / m.sum() for m in (mask, ~mask))
        overlaps.append(np.minimum(inside, outside).sum())
    assert min(overlaps) > 0.1
    assert np.mean(overlaps) > 0.25


def test_object_and_background_have_texture(scenes: dict[str, Scene]) -> None:
    """Flow needs texture: the mean gradient is well above the grain's."""
    for scene in scenes.values():
        gray = cv2.cvtColor(render_frame(scene, 3), cv2.COLOR_RGB2GRAY).astype(np.float32)
        slope = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)) / 8
        mask = object_mask(scene, 3.0)
        assert slope[mask].mean() > 4
        assert slope[~mask].mean() > 2.5


def test_noise_is_uniform_and_cells_cover_the_canvas() -> None:
    canvas = Canvas(half_width=60, half_height=40, density=1.5)
    values = fractal(canvas, np.random.default_rng(0), feature=12)
    assert values.shape == canvas.shape == (120, 180)
    np.testing.assert_allclose(np.quantile(values, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.07)
    parts = cells(canvas, np.random.default_rng(0), size=12)
    assert 40 < len(np.unique(parts.label)) < 140  # 67 cells of 12x12 units
    assert parts.edge.max() < 12


def test_canvas_coordinates_are_texel_centres() -> None:
    canvas = Canvas(half_width=10, half_height=5, density=2)
    x, y = canvas.grid()
    np.testing.assert_allclose(canvas.texels(np.array([x[3, 7], y[3, 7]])), [7, 3], atol=1e-5)


# files
