"""Feature sources by name, with the weights that DINO needs."""

from __future__ import annotations

from dataclasses import dataclass

from model.features import FeatureSource, feature_source

_DINO_NETWORKS = ("dino-vit-s8", "dino-vit-b8")  # GWM merges by the first on video, by the second on images


@dataclass(frozen=True, kw_only=True)
class MergingFeatures:
    """What segments are merged by: a name of model/features.py, and for ``dino`` a ViT checkpoint.

    weights: a name such as ``dino-vit-s8``, a file, or a URI with the SHA-256 of its bytes (``tasks/weights.py``).
    """

    name: str = "decoder"
    weights: str | None = None
    sha256: str | None = None


def build_features(wanted: MergingFeatures, *, device: str = "cpu") -> FeatureSource:
    """Build the source of features; DINO's weights are fetched, checked and loaded.

    Raises InputError for an unknown name or missing weights, WeightsError when the weights do not fit.
    """
    if wanted.name != "dino" or wanted.weights is None:
        return feature_source(wanted.name)
    # timm takes seconds to import, and only DINO needs it
    from model.networks.dino_vit import DinoKeys
    from tasks.backbones import load_backbone

    backbone = load_backbone(wanted.weights, wanted.sha256, networks=_DINO_NETWORKS)
    return feature_source(wanted.name, DinoKeys.from_state(backbone.state, source=backbone.source).to(device))
