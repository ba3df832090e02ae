"""Checkpoints of PWC-Net's and ARFlow's authors in our names.

Each table maps a layer's name there to its name here; ``weight`` and ``bias`` are called the same everywhere. A name
that no table holds stays as it is: loading then tells what does not belong, and our own files pass unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from model.networks.pwc_blocks import CONTEXT_CHANNELS
from model.networks.pwc_net import DENSE_CHANNELS

_NUMERALS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")  # of sniklaus/pytorch-pwc
_COARSE_TO_FINE = (6, 5, 4, 3, 2)  # both ports count levels by the logarithm of their stride
_LAST_CONTEXT_LAYER = len(CONTEXT_CHANNELS)


def convert_pwc_checkpoint(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a checkpoint of NVlabs/PWC-Net or sniklaus/pytorch-pwc to ``PwcNet``'s state dict."""
    tables = _nvlabs_layers() | _sniklaus_layers()
    renamed = {}
    for name, tensor in state.items():
        plain = re.sub(r"\bmodule(?=[A-Z])", "net", name.removeprefix("module."))  # older files of the second port
        if not plain.startswith("deconv2."):  # upsamples the finest flow, which nothing reads
            renamed[_renamed(plain, tables)] = tensor
    return renamed


def convert_arflow_checkpoint(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a checkpoint of lliuz/ARFlow to ``PwcLite``'s, or AMD's motion network to ``SegmentFlow``'s state dict."""
    table = _arflow_layers()
    return {_renamed(name.removeprefix("module."), table): tensor for name, tensor in state.items()}


def _renamed(name: str, table: Mapping[str, str]) -> str:
    layer, _, parameter = name.rpartition(".")
    return f"{table.get(layer, layer)}.{parameter}"


def _nvlabs_layers() -> dict[str, str]:
    names = {"dc_conv7": f"context.{_LAST_CONTEXT_LAYER}"}
    names |= {f"dc_conv{index + 1}.0": f"context.{index}.0" for index in range(_LAST_CONTEXT_LAYER)}
    for level in range(1, 7):
        letters = ("aa", "a", "b") if level == 6 else ("a", "aa", "b")
        names |= {f"conv{level}{letter}.0": f"pyramid.levels.{level - 1}.{i}.0" for i, letter in enumerate(letters)}
    for index, level in enumerate(_COARSE_TO_FINE):
        for i in range(len(DENSE_CHANNELS)):
            names[f"conv{level}_{i}.0"] = f"decoders.{index}.convolutions.{i}.0"
        names[f"predict_flow{level}"] = f"decoders.{index}.head"
        names[f"deconv{level}"] = f"flow_upsamplings.{index}"
        names[f"upfeat{level}"] = f"feature_upsamplings.{index}"
    return names


def _sniklaus_layers() -> dict[str, str]:
    names = {f"netRefiner.netMain.{2 * i}": f"context.{i}.0" for i in range(_LAST_CONTEXT_LAYER)}
    names[f"netRefiner.netMain.{2 * _LAST_CONTEXT_LAYER}"] = f"context.{_LAST_CONTEXT_LAYER}"
    for level, numeral in enumerate(_NUMERALS):
        names |= {f"netExtractor.net{numeral}.{2 * i}": f"pyramid.levels.{level}.{i}.0" for i in range(3)}
    for index, level in enumerate(_COARSE_TO_FINE):
        decoder = f"net{_NUMERALS[level - 1]}"
        for i in range(len(DENSE_CHANNELS)):
            names[f"{decoder}.net{_NUMERALS[i]}.0"] = f"decoders.{index}.convolutions.{i}.0"
        names[f"{decoder}.netSix.0"] = f"decoders.{index}.head"
        # there, what brings flow up to a level belongs to that level
        names[f"{decoder}.netUpflow"] = f"flow_upsamplings.{index - 1}"
        names[f"{decoder}.netUpfeat"] = f"feature_upsamplings.{index - 1}"
    return names


def _arflow_layers() -> dict[str, str]:
    names = {"flow_estimators.predict_flow.0": "head"}
    names |= {"flow_estimators.predict_flow1.0": "head.0.0", "flow_estimators.predict_flow2.0": "head.1"}  # AMD
    names[f"context_networks.convs.{_LAST_CONTEXT_LAYER}.0"] = f"context.{_LAST_CONTEXT_LAYER}"
    for i in range(_LAST_CONTEXT_LAYER):
        names[f"context_networks.convs.{i}.0"] = f"context.{i}.0"
    for level in range(6):
        for i in range(2):
            names[f"feature_pyramid_extractor.convs.{level}.{i}.0"] = f"matcher.pyramid.levels.{level}.{i}.0"
    for i in range(5):
        names[f"conv_1x1.{i}.0"] = f"matcher.reductions.{i}.0"
        names[f"flow_estimators.conv{i + 1}.0"] = f"matcher.estimator.convolutions.{i}.0"
    return names
