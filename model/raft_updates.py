"""RAFT's recurrent updates, arranged so that nothing is computed twice.

torchvision's block convolves (hidden state, context, motion) in every update, though the context never changes. A
convolution is linear in its input channels, so the context's part is computed once per frame and added:

::

    conv([hidden, context, motion]) = conv_1([hidden, motion]) + conv_2(context) + bias
                                       every update               once per frame

The two gates of a recurrent unit read the same input, so they are one convolution. Tensors are channels_last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.optical_flow.raft import ConvGRU, UpdateBlock


class ContextTerms(NamedTuple):
    """What the context of a frame adds to the gates and to the candidate of one recurrent unit."""

    gates: Float[Tensor, "n d2 h w"]
    candidate: Float[Tensor, "n d h w"]


class _RecurrentUnit(nn.Module):
    """A convolutional gated recurrent unit, torchvision's weights sorted by what they read."""

    def __init__(self, unit: ConvGRU, hidden_size: int, context_size: int) -> None:
        super().__init__()
        trained = (unit.convz, unit.convr, unit.convq)
        biases = torch.cat([layer.bias for layer in trained])
        parts = [_by_input(layer, hidden_size, context_size) for layer in trained]
        changing, context = zip(*parts, strict=True)
        padding = unit.convz.padding
        self.gates = _convolution(torch.cat(changing[:2]), None, padding)
        self.candidate = _convolution(changing[2], None, padding)
        self.context = _convolution(torch.cat(context), biases, padding)
        self._hidden_size = hidden_size

    def terms(self, context: Float[Tensor, "n c h w"]) -> ContextTerms:
        both = self.context(context)
        gates, candidate = both.split([2 * self._hidden_size, self._hidden_size], dim=1)
        layout = torch.channels_last
        return ContextTerms(gates.contiguous(memory_format=layout), candidate.contiguous(memory_format=layout))

    def forward(
        self, hidden: Float[Tensor, "n d h w"], inputs: Float[Tensor, "n e h w"], terms: ContextTerms
    ) -> Float[Tensor, "n d h w"]:
        """Return the next hidden state. inputs: (anything, motion); the first part is overwritten."""
        place = inputs[:, : self._hidden_size]
        place.copy_(hidden)
        update, reset = self.gates(inputs).add_(terms.gates).sigmoid_().chunk(2, dim=1)
        torch.mul(reset, hidden, out=place)
        candidate = self.candidate(inputs).add_(terms.candidate).tanh_()
        return torch.lerp(hidden, candidate, update)


class UpdateOperator(nn.Module):
    """torchvision's update block without the context, which ``context_terms`` prepares."""

    def __init__(self, block: UpdateBlock, context_size: int) -> None:
        super().__init__()
        recurrent = block.recurrent_block
        self.hidden_size = int(block.hidden_state_size)
        self.motion_encoder = block.motion_encoder
        # a convolution of single pixels; torch runs it faster as what it is
        self.read_correlation = _as_linear(block.motion_encoder.convcorr1[0])
        # raft-small has one unit; the second is then a function that does nothing
        units = [unit for unit in (recurrent.convgru1, recurrent.convgru2) if isinstance(unit, ConvGRU)]
        self.units: Sequence[_RecurrentUnit] = nn.ModuleList(  # type: ignore[assignment]
            _RecurrentUnit(unit, self.hidden_size, context_size) for unit in units
        )
        self.flow_head = block.flow_head

    def context_terms(self, context: Float[Tensor, "n c h w"]) -> tuple[ContextTerms, ...]:
        """Return what the context adds to every update, for each recurrent unit."""
        return tuple(unit.terms(context) for unit in self.units)

    def forward(
        self,
        hidden: Float[Tensor, "n d h w"],
        terms: tuple[ContextTerms, ...],
        correlation: Float[Tensor, "n h w k"],
        flow: Float[Tensor, "n 2 h w"],
    ) -> tuple[Float[Tensor, "n d h w"], Float[Tensor, "n 2 h w"]]:
        """Return the next hidden state and what to add to ``flow``, which is in units of 8 px."""
        encoder = self.motion_encoder
        seen = encoder.convcorr2(self.read_correlation(correlation).relu_().permute(0, 3, 1, 2))
        moved = encoder.convflow2(encoder.convflow1(flow))
        motion = encoder.conv(torch.cat([seen, moved], dim=1))
        inputs = torch.cat([hidden, motion, flow], dim=1)
        for unit, term in zip(self.units, terms, strict=True):
            hidden = unit(hidden, inputs, term)
        return hidden, self.flow_head(hidden)


def _by_input(layer: nn.Conv2d, hidden_size: int, context_size: int) -> tuple[Tensor, Tensor]:
    """Split a weight by its inputs (hidden, context, motion) into (hidden and motion, context)."""
    hidden, context, motion = layer.weight.split(
        [hidden_size, context_size, layer.in_channels - hidden_size - context_size], dim=1
    )
    return torch.cat([hidden, motion], dim=1), context


def _convolution(weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> nn.Conv2d:
    outputs, inputs, rows, columns = weight.shape
    layer = nn.Conv2d(inputs, outputs, (rows, columns), padding=padding, bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _as_linear(layer: nn.Conv2d) -> nn.Linear:
    assert layer.bias is not None
    linear = nn.Linear(layer.in_channels, layer.out_channels)
    linear.weight = nn.Parameter(layer.weight.detach().flatten(1).clone())
    linear.bias = nn.Parameter(layer.bias.detach().clone())
    return linear
