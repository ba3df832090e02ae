"""What the HTML pages share: the template environment, pictures as data URIs, curves as SVG.

A page is one file: style inline, pictures inside, no script, nothing fetched. It opens from a mail or an artifact
store as well as from a disk, in light and in dark.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tasks.pictures import Picture, jpeg_bytes, resized

TEMPLATES = Path(__file__).parent / "templates"

_CURVE_WIDTH, _CURVE_HEIGHT = 320, 56
_MOST_POINTS = 640  # two for each unit of width: more can not be seen, and a film has 200 000


def render(template: str, **values: Any) -> str:
    """Fill a template of ``tasks/templates``; values are escaped, a name that it misses is an error."""
    return _environment().get_template(template).render(**values)


def data_uri(jpeg: bytes) -> str:
    """Return JPEG bytes as an address that holds them."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def jpeg_data_uri(picture: Picture, *, height: int) -> str:
    """Return a picture at ``height`` pixels as an address that holds it."""
    return data_uri(jpeg_bytes(resized(picture, height=height)))


def percent(value: float) -> str:
    """Return a score of 0..1 as the field prints it: 62.5 for 0.625; a dash where there is no number."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def curve(values: Sequence[float], *, label: str, marks: Sequence[int] = ()) -> Markup:
    """Draw values of 0..1 over their position as SVG, with dots at ``marks``."""
    step = max(1, -(-len(values) // _MOST_POINTS))
    shown = [
        (index, sum(values[index : index + step]) / len(values[index : index + step]))
        for index in range(0, len(values), step)
    ]
    points = [(_across(index, len(values)), _down(value)) for index, value in shown]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{_across(mark, len(values)):.1f}" cy="{_down(values[mark]):.1f}" r="3"/>' for mark in marks
    )
    grid = "".join(f'<line x1="0" x2="{_CURVE_WIDTH}" y1="{_down(y)}" y2="{_down(y)}"/>' for y in (0, 0.5, 1))
    return Markup(
        f'<svg class="curve" viewBox="-4 -4 {_CURVE_WIDTH + 8} {_CURVE_HEIGHT + 8}" role="img" aria-label="{{}}">'
        f'<g class="grid">{grid}</g><polyline points="{line}"/>{dots}</svg>'
    ).format(label)


def _across(index: int, count: int) -> float:
    return _CURVE_WIDTH * index / max(1, count - 1)


def _down(value: float) -> float:
    return _CURVE_HEIGHT * (1 - min(1.0, max(0.0, value)))


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]  # capitalize lowers the rest
    environment.filters["data_uri"] = data_uri
    return environment
