"""Baselines without motion and without training: a clustering of DINO keys that stands in for a model in evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.clustering import ClusteringAlgorithm, KeyClustering
from model.methods.base import Method
from tasks.errors import WeightsError
from tasks.features import MergingFeatures, build_features
from tasks.scores import EvaluatedModel


@dataclass(frozen=True, kw_only=True)
class ClusteringBaseline:
    """Which clustering of each image's keys makes its segments (GWM, Table 6)."""

    algorithm: ClusteringAlgorithm
    num_segments: int

    @property
    def name(self) -> str:
        """Name in reports, such as ``k-means-4``."""
        return f"{self.algorithm}-{self.num_segments}"


def build_clustering(baseline: ClusteringBaseline, keys: MergingFeatures, *, device: str = "cpu") -> Method:
    """Build the clustering on the DINO checkpoint that ``keys`` names, whatever segments are merged by elsewhere.

    Raises WeightsError when ``keys`` names none or it does not fit.
    """
    if keys.weights is None:
        raise WeightsError(
            f"the baseline {baseline.name} clusters DINO keys and got none: give a DINO ViT checkpoint with "
            "--feature-weights"
        )
    source = build_features(replace(keys, name="dino"), device=device)
    return KeyClustering(source, algorithm=baseline.algorithm, num_segments=baseline.num_segments)


def describe_clustering(baseline: ClusteringBaseline, keys: MergingFeatures) -> EvaluatedModel:
    """Return what a report says of a baseline in the place of a trained model."""
    return EvaluatedModel(
        reference=f"{baseline.name} on {keys.weights}",
        weights_sha256=keys.sha256 or "",
        experiment=baseline.name,
        num_segments=baseline.num_segments,
        checkpoint="none: nothing is trained",
    )
