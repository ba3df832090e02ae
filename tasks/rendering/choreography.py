"""Plan the object's way and the camera's: legs at cruising speed, stops of a few frames, turns, a camera that follows.

Candidates are drawn at random and the one that breaks the rules least is taken: the object stays in the frame, moves
against its background most of the time, and the background stays below 3 pixels a frame at the default size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.rendering.motion import SAMPLES_PER_FRAME, Track, num_samples, smooth

Curve = npt.NDArray[np.float64]

_NUM_CANDIDATES = 60  # with 60 every kind of scene finds a plan of zero penalty for almost every seed

MAX_CAMERA_SPEED = 3.0
"""Units per frame. DIS, at its medium preset, starts from 1/8 of the size: it follows this without a slip."""

MIN_MOVING_SPEED = 1.5
"""Units per frame against the background; below it, DIS's own error of about 0.3 px blurs the object's outline."""


@dataclass(frozen=True, kw_only=True)
class Moves:
    """How one kind of object moves.

    speed: least and greatest cruising speed, units per frame.
    leg_frames, stop_frames: least and greatest length of a leg and of the stop after it.
    home: the legs lead to and fro over a box of this half width and half height around the start, units.
    extent: half width and half height of the object; its centre stays this far inside the frame.
    steered: its nose points where it goes; otherwise it keeps upright and leans.
    max_turn: radians per frame. At 0.09 the tip of a 150 unit fish moves 6 units a frame by turning alone.
    stride: units travelled per cycle of its limbs. idle: cycles per frame when it rests.
    signed_gait: the limbs run backwards when it does: wheels.
    lean: radians per unit of horizontal speed, of an object that is not steered.
    follow: share of the object's way, smoothed, that the camera repeats.
    """

    speed: tuple[float, float]
    home: tuple[float, float]
    extent: tuple[float, float]
    leg_frames: tuple[float, float] = (9.0, 14.0)
    stop_frames: tuple[float, float] = (3.0, 4.5)
    steered: bool = True
    max_turn: float = 0.085
    stride: float = 60.0
    idle: float = 0.02
    signed_gait: bool = False
    lean: float = 0.0
    follow: float = 0.75


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The tracks of a clip and how far they are from the rules (0: all are kept)."""

    actor: Track
    camera: Track
    penalty: float


def plan_tracks(rng: np.random.Generator, moves: Moves, *, num_frames: int, frame_units: tuple[float, float]) -> Plan:
    """Draw candidates and return the one that keeps the rules best; ``frame_units`` is the frame's width and height."""
    best: Plan | None = None
    for _ in range(_NUM_CANDIDATES):
        plan = _candidate(rng, moves, num_frames, frame_units)
        if best is None or plan.penalty < best.penalty:
            best = plan
        if best.penalty == 0:
            break
    assert best is not None
    return best


def _candidate(rng: np.random.Generator, moves: Moves, num_frames: int, frame_units: tuple[float, float]) -> Plan:
    speed, leg = _speed_curve(rng, moves, num_samples(num_frames))
    travel = _steered if moves.steered else _sliding
    x, y, angle = travel(rng, moves, speed, leg)
    actor = _actor_curves(rng, moves, x, y, angle)
    camera = _camera_curves(rng, moves, x, y)
    return Plan(
        actor=Track(curves=actor),
        camera=Track(curves=camera),
        penalty=_penalty(moves, actor, camera, frame_units),
    )


def _speed_curve(rng: np.random.Generator, moves: Moves, length: int) -> tuple[Curve, npt.NDArray[np.int64]]:
    """Return the speed at every sample, smooth, and the number of the leg it belongs to."""
    speed, leg = np.zeros(length), np.zeros(length, np.int64)
    position, number = 0, 0
    while position < length:
        going = round(rng.uniform(*moves.leg_frames) * SAMPLES_PER_FRAME)
        resting = round(rng.uniform(*moves.stop_frames) * SAMPLES_PER_FRAME)
        speed[position : position + going] = rng.uniform(*moves.speed)
        leg[position : position + going + resting] = number
        position, number = position + going + resting, number + 1
    return smooth(speed, 0.9), leg


def _targets(rng: np.random.Generator, moves: Moves, count: int) -> Curve:
    """Return where each leg leads: alternately to the right and to the left of home, [count, 2]."""
    side = np.where(np.arange(count) % 2 == rng.integers(2), 1.0, -1.0)
    x = side * rng.uniform(0.6, 1.0, count) * moves.home[0]
    return np.stack([x, rng.uniform(-1, 1, count) * moves.home[1]], -1)


def _steered(
    rng: np.random.Generator, moves: Moves, speed: Curve, leg: npt.NDArray[np.int64]
) -> tuple[Curve, Curve, Curve]:
    targets = _targets(rng, moves, int(leg.max()) + 1)
    place = np.array([0.0, 0.0])
    heading = rng.uniform(-np.pi, np.pi)
    turning = 0.0
    path = np.zeros((len(speed), 3))
    for i, (v, number) in enumerate(zip(speed, leg, strict=True)):
        path[i] = (*place, heading)
        to_target = targets[number] - place
        error = np.angle(np.exp(1j * (np.arctan2(to_target[1], to_target[0]) - heading)))
        wanted = np.clip(0.12 * error, -moves.max_turn, moves.max_turn) * min(1.0, 0.15 + v / moves.speed[0])
        turning += (wanted - turning) / (1.5 * SAMPLES_PER_FRAME)
        heading += turning / SAMPLES_PER_FRAME
        place = place + v / SAMPLES_PER_FRAME * np.array([np.cos(heading), np.sin(heading)])
    return path[:, 0], path[:, 1], path[:, 2]


def _sliding(
    rng: np.random.Generator, moves: Moves, speed: Curve, leg: npt.NDArray[np.int64]
) -> tuple[Curve, Curve, Curve]:
    targets = _targets(rng, moves, int(leg.max()) + 1)
    start = -0.5 * targets[0]
    velocity = np.zeros((len(speed), 2))
    place = start
    for number in range(len(targets)):
        here = leg == number
        way = targets[number] - place
        velocity[here] = speed[here, None] * way / max(float(np.hypot(*way)), 1e-6)
        place = place + velocity[here].sum(0) / SAMPLES_PER_FRAME
    x, y = (start[:, None] + np.cumsum(velocity, 0).T / SAMPLES_PER_FRAME).astype(float)
    return smooth(x, 0.8), smooth(y, 0.8), smooth(moves.lean * velocity[:, 0], 2.5)


def _actor_curves(rng: np.random.Generator, moves: Moves, x: Curve, y: Curve, angle: Curve) -> dict[str, Curve]:
    """Add to a path what the limbs need: speed, turn and gait."""
    step_x, step_y = np.gradient(x), np.gradient(y)
    way = step_x if moves.signed_gait else np.hypot(step_x, step_y)
    gait = 2 * np.pi * np.cumsum(way / moves.stride + moves.idle / SAMPLES_PER_FRAME) + rng.uniform(0, 2 * np.pi)
    return {
        "x": x,
        "y": y,
        "angle": angle,
        "gait": gait,
        "turn": smooth(np.gradient(angle) * SAMPLES_PER_FRAME, 1.5),
        "speed": np.hypot(step_x, step_y) * SAMPLES_PER_FRAME,
    }


def _camera_curves(rng: np.random.Generator, moves: Moves, x: Curve, y: Curve) -> dict[str, Curve]:
    """Follow the object late and not all the way, as a hand does, with a slow sway of its own."""
    time = np.arange(len(x)) / SAMPLES_PER_FRAME

    def sway(amplitude: float, low: float = 45.0, high: float = 80.0) -> Curve:
        return amplitude * np.sin(2 * np.pi * (time / rng.uniform(low, high) + rng.random()))

    return {
        "x": moves.follow * smooth(x, 7.0) + sway(11.0),
        "y": moves.follow * smooth(y, 7.0) + sway(5.0),
        "roll": sway(0.018),
        "zoom": 1 + sway(0.02),
    }


def _penalty(
    moves: Moves, actor: dict[str, Curve], camera: dict[str, Curve], frame_units: tuple[float, float]
) -> float:
    """Add up, in units, by how much a plan breaks the rules."""
    outside = 0.0
    for axis, extent, length in zip(("x", "y"), moves.extent, frame_units, strict=True):
        offset = np.abs(actor[axis] - camera[axis])
        outside += max(float(offset.max()) - (length / 2 - extent), 0.0)
    camera_speed = np.hypot(np.gradient(camera["x"]), np.gradient(camera["y"])) * SAMPLES_PER_FRAME
    moving = float(((actor["speed"] > MIN_MOVING_SPEED) | (np.abs(actor["turn"]) > 0.04)).mean())
    return outside + 20 * max(float(camera_speed.max()) - MAX_CAMERA_SPEED, 0.0) + 50 * max(0.6 - moving, 0.0)
