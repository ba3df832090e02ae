"""What a network makes of a few training frames, drawn while it trains."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from model.methods.base import Method
from tasks.dataset import FrameReader
from tasks.pictures import Picture, contact_sheet, flow_picture, segments_picture

_NUM_CLIPS = 4
_HEIGHT = 128


def training_picture(module: nn.Module, reader: FrameReader, gap: int | None = None) -> Picture:
    """Draw one row for each of up to four clips: frame, optical flow, and soft segments over the frame.

    gap: of the optical flow; None takes the nearest that each clip was ingested with. The clips are spread over the
    dataset and their middle frames shown, the same ones every time. Leaves the module as it was; nothing random is
    drawn.
    """
    gaps = [min(clip.gaps, key=abs) if gap is None else gap for clip in reader.clips]
    clips = [index for index, clip in enumerate(reader.clips) if clip.num_frames > abs(gaps[index])]
    chosen = [clips[round(place)] for place in np.linspace(0, len(clips) - 1, min(_NUM_CLIPS, len(clips)))]
    training = module.training
    module.eval()
    try:
        rows = [_row(cast(Method, module), reader, clip, gaps[clip]) for clip in chosen]
        return contact_sheet(rows, height=_HEIGHT)
    finally:
        module.train(training)


def _row(method: Method, reader: FrameReader, clip: int, gap: int) -> list[Picture]:
    num_frames = reader.clips[clip].num_frames
    frame = max(0, -gap) + (num_frames - abs(gap)) // 2
    pair = reader.read_pair(clip, frame, gap)
    device = next(cast(nn.Module, method).parameters()).device
    with torch.no_grad():
        probabilities = method.segment(pair.image[None].float().to(device)).probabilities[0].cpu().numpy()
    image: Picture = pair.image.permute(1, 2, 0).contiguous().numpy()
    return [image, flow_picture(pair.flow.numpy()), segments_picture(probabilities, frame=image)]
