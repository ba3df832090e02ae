"""Feature sources by name, with the weights that DINO needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.features import FeatureSource, feature_source
from model.weights import load_state_dict
from tasks.errors import WeightsError
from tasks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class MergingFeatures:
    """What segments are merged by: a name of model/features.py, and for ``dino`` a ViT checkpoint.

    weights: a file, or a URI with the SHA-256 of its bytes.
    """

    name: str = "decoder"
    weights: str | None = None
    sha256: str | None = None


def build_features(wanted: MergingFeatures, *, device: str = "cpu") -> FeatureSource:
    """Build the source of features; DINO's weights are loaded and checked.

    Raises InputError for an unknown name or missing weights, WeightsError when the weights do not fit.
    """
    if wanted.name != "dino" or wanted.weights is None:
        return feature_source(wanted.name)
    from model.networks.dino_vit import DinoKeys  # timm takes seconds to import, and only DINO needs it

    keys = DinoKeys.from_state(load_state_dict(_local(wanted), wanted.sha256), source=wanted.weights)
    return feature_source(wanted.name, keys.to(device))


def _local(wanted: MergingFeatures) -> Path:
    assert wanted.weights is not None  # only asked for with weights
    if "://" in wanted.weights:
        from tasks.flow_weights import fetch_pinned_file  # torchvision, likewise

        return fetch_pinned_file(wanted.weights, wanted.sha256, Settings().weights_path)
    path = Path(wanted.weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"no DINO weights at {wanted.weights}: expected a checkpoint, or a URI with its SHA-256")
    return path
