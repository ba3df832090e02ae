"""The demo's footage, made from nothing: textured objects that move, stop and turn, with exact masks and exact flow.

``stages`` lists the kinds of clips; ``footage`` renders them into files; ``truth`` reads what is known about them.
Underneath: ``noise`` and ``painting`` draw; ``materials``, ``actors`` and ``vehicles`` are what is drawn; ``motion``
and ``scene`` are the geometry that pictures and exact flow share; ``choreography`` plans the ways; ``renderer`` takes
the pictures.
"""

from tasks.rendering.footage import ClipParameters, RenderedClip, plan_footage, render_clip, render_footage
from tasks.rendering.truth import ClipTruth, ExactFlow, load_truth

__all__ = [
    "ClipParameters",
    "ClipTruth",
    "ExactFlow",
    "RenderedClip",
    "load_truth",
    "plan_footage",
    "render_clip",
    "render_footage",
]
