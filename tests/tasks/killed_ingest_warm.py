"""What the fork server of ``tests/tasks/killed_ingest.py`` does once, so that its children need not: imports, numba."""

from __future__ import annotations

import cv2
import numpy as np
import torch

import tests.tasks.killed_ingest  # noqa: F401
from tasks.flow_codec import encode_flow

torch.set_num_threads(1)  # a process with threads can not be forked
cv2.setNumThreads(1)
encode_flow(np.zeros((2, 48, 64), np.float32))
