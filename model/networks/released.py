"""Names of GWM's released checkpoints (detectron2's layout) and of our MaskFormer."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from model.errors import WeightsError

HEAD_PREFIX = "sem_seg_head."

_SHARED_NORM = re.compile(r"pixel_decoder\.(?:layer_4|mask_features\.[0235])\.norm\.(weight|bias)")
_UNUSED = re.compile(r"predictor\.mask_querie_comb\.")  # a stack that the released code builds but never runs
_ATTENTION = r"\.(in_proj_weight|in_proj_bias|out_proj\.weight|out_proj\.bias)"
_LAYER = r"predictor\.transformer\.decoder\.layers\.(\d+)\."

_NAMES: tuple[tuple[str, str], ...] = (
    (r"pixel_decoder\.adapter_1\.weight", r"pixel_decoder.laterals.0.convolution.weight"),
    (r"pixel_decoder\.adapter_2\.weight", r"pixel_decoder.laterals.1.convolution.weight"),
    (r"pixel_decoder\.adapter_3\.weight", r"pixel_decoder.laterals.2.convolution.weight"),
    (r"pixel_decoder\.adapter_1\.norm\.(\w+)", r"pixel_decoder.laterals.0.norm.\1"),
    (r"pixel_decoder\.adapter_2\.norm\.(\w+)", r"pixel_decoder.laterals.1.norm.\1"),
    (r"pixel_decoder\.adapter_3\.norm\.(\w+)", r"pixel_decoder.laterals.2.norm.\1"),
    (r"pixel_decoder\.layer_1\.weight", r"pixel_decoder.outputs.0.convolution.weight"),
    (r"pixel_decoder\.layer_2\.weight", r"pixel_decoder.outputs.1.convolution.weight"),
    (r"pixel_decoder\.layer_3\.weight", r"pixel_decoder.outputs.2.convolution.weight"),
    (r"pixel_decoder\.layer_1\.norm\.(\w+)", r"pixel_decoder.outputs.0.norm.\1"),
    (r"pixel_decoder\.layer_2\.norm\.(\w+)", r"pixel_decoder.outputs.1.norm.\1"),
    (r"pixel_decoder\.layer_3\.norm\.(\w+)", r"pixel_decoder.outputs.2.norm.\1"),
    (r"pixel_decoder\.layer_4\.weight", r"pixel_decoder.deepest.weight"),
    (r"pixel_decoder\.mask_features\.0\.weight", r"pixel_decoder.before.0.weight"),
    (r"pixel_decoder\.mask_features\.2\.weight", r"pixel_decoder.after.0.weight"),
    (r"pixel_decoder\.mask_features\.3\.weight", r"pixel_decoder.before.1.weight"),
    (r"pixel_decoder\.mask_features\.5\.weight", r"pixel_decoder.after.1.weight"),
    (r"pixel_decoder\.mask_features\.(?:6\.)?(weight|bias)", r"pixel_decoder.mask_features.\1"),
    (r"predictor\.input_proj\.(\w+)", r"query_decoder.input_projection.\1"),
    (r"predictor\.query_embed\.weight", r"query_decoder.queries.weight"),
    (_LAYER + r"self_attn" + _ATTENTION, r"query_decoder.layers.\1.self_attention.\2"),
    (_LAYER + r"multihead_attn" + _ATTENTION, r"query_decoder.layers.\1.cross_attention.\2"),
    (_LAYER + r"linear1\.(\w+)", r"query_decoder.layers.\1.feedforward.0.\2"),
    (_LAYER + r"linear2\.(\w+)", r"query_decoder.layers.\1.feedforward.3.\2"),
    (_LAYER + r"norm1\.(\w+)", r"query_decoder.layers.\1.self_norm.\2"),
    (_LAYER + r"norm2\.(\w+)", r"query_decoder.layers.\1.cross_norm.\2"),
    (_LAYER + r"norm3\.(\w+)", r"query_decoder.layers.\1.feedforward_norm.\2"),
    (r"predictor\.transformer\.decoder\.norm\.(\w+)", r"query_decoder.norm.\1"),
    (r"predictor\.mask_embed\.layers\.0\.(\w+)", r"query_decoder.mask_embedding.0.\1"),
    (r"predictor\.mask_embed\.layers\.1\.(\w+)", r"query_decoder.mask_embedding.2.\1"),
    (r"predictor\.mask_embed\.layers\.2\.(\w+)", r"query_decoder.mask_embedding.4.\1"),
)


def convert_released_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return pixel and query decoder of a released GWM checkpoint under the names they have in ``MaskFormer``.

    Names that do not begin with ``sem_seg_head.`` are left out (the released DINO models hold no backbone), and so is
    the stack that is never run. Raises WeightsError when a name of the head is unknown, or when the five norms that are
    one module in the released code differ.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith(HEAD_PREFIX) or _UNUSED.match(name, len(HEAD_PREFIX)):
            continue
        ours = _our_name(name)
        if ours in converted and not torch.equal(converted[ours], tensor):
            raise WeightsError(
                f"{name} differs from the other norms of the mask branch: expected one norm under five names, as the "
                "released pixel decoder has it; this checkpoint is of another network"
            )
        converted[ours] = tensor
    if not converted:
        raise WeightsError(
            f"no names beginning with {HEAD_PREFIX!r}, but such as {next(iter(state), None)!r}: "
            "expected a released GWM checkpoint"
        )
    return converted


def _our_name(name: str) -> str:
    inner = name.removeprefix(HEAD_PREFIX)
    if match := _SHARED_NORM.fullmatch(inner):
        return f"pixel_decoder.shared_norm.{match[1]}"
    for pattern, ours in _NAMES:
        if match := re.fullmatch(pattern, inner):
            return match.expand(ours)
    raise WeightsError(f"{name} is no part of the released head: expected pixel_decoder.* and predictor.* of GWM")
