"""What the fork server of ``tests/tasks/killed_ingest.py`` does once, so that its children need not.

Imports, those too that libraries leave to their first use (pandas by pyarrow, scipy by imagehash), are most of a short
ingest.
"""

from __future__ import annotations

import tempfile

import cv2
import numpy as np
import torch

import tests.tasks.killed_ingest  # noqa: F401
from tasks.clip_facts import ClipObserver
from tasks.flow_codec import encode_flow
from tasks.shards import FrameRow, VideoLabel, write_video
from tests.tasks.small_footage import RECIPE

torch.set_num_threads(1)  # a process with threads can not be forked
cv2.setNumThreads(1)

flow = encode_flow(np.zeros((2, 48, 64), np.float32))
jpeg = bytes(cv2.imencode(".jpg", np.zeros((48, 64), np.uint8))[1])
row = FrameRow(
    time_seconds=0.0, width=64, height=48, jpeg=jpeg, annotation=None, flows=dict.fromkeys(RECIPE.gaps, flow)
)
label = VideoLabel(video_id="0" * 64, recipe=RECIPE, clip="warm", source="warm")
observer = ClipObserver(label)
with tempfile.TemporaryDirectory() as folder:
    write_video(folder, label, observer.watch([row, row]))
observer.facts()
