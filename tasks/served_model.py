"""The door through which MLflow loads our models: a loader module, so that no pickle is stored or read.

``mlflow.pyfunc.load_model("models:/gwm@champion").predict(images)`` ends up here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from model.clip_evidence import ClipEvidence
from model.foreground import choose_grouping, group_mask
from model.segment_roles import SegmentRoles
from tasks.errors import InputError
from tasks.model_package import LoadedModel, load_model

_BATCH = 8


class ServedModel:
    """A model that segments still images; the foreground is chosen per image without labels."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded

    def predict(self, images: NDArray[np.uint8], params: Mapping[str, Any] | None = None) -> dict[str, NDArray[Any]]:
        """Segment RGB images uint8 [n, H, W, 3].

        Returns ``masks`` bool [n, H, W], and at the network's resolution ``probabilities`` float32 [n, k, h, w].
        ``params`` is part of MLflow's interface and not used.
        """
        _require_images(images)
        parts = [self._segment(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _segment(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        probabilities = self.loaded.method.segment(batch).probabilities
        soft = torch.cat(
            [_foreground(*pair, self.loaded.roles) for pair in zip(probabilities.split(1), batch.split(1), strict=True)]
        )  # [n, h, w]
        full = F.interpolate(soft[:, None], size=images.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
        return {"masks": (full > 0.5).numpy(), "probabilities": probabilities.numpy()}


def _foreground(probabilities: torch.Tensor, image: torch.Tensor, roles: SegmentRoles | None) -> torch.Tensor:
    evidence = ClipEvidence(probabilities.shape[1])
    evidence.update(probabilities, None, image)
    return group_mask(probabilities, choose_grouping(evidence, "appearance", roles).segments)


def _require_images(images: NDArray[np.uint8]) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise InputError(f"predict({type(images).__name__}): expected a numpy array of uint8, RGB [n, H, W, 3]")
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise InputError(f"predict(images of shape {images.shape}): expected [n >= 1, H, W, 3]")


def _load_pyfunc(path: str) -> ServedModel:
    """Load the model folder below ``path``; the name is MLflow's."""
    folder = next(iter(sorted(Path(path).rglob("model.json"))), Path(path) / "model.json").parent
    return ServedModel(load_model(str(folder)))
