"""A clustering of DINO keys through a whole evaluation; the network is random, so its scores mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from model.networks.dino_vit import DinoKeys
from tasks.benchmarks import open_benchmark
from tasks.clustering import ClusteringBaseline
from tasks.errors import WeightsError
from tasks.evaluate import EvaluationJob, SequenceWorker, evaluate
from tasks.features import MergingFeatures
from tasks.foreground_choices import GROUND_TRUTH_PER_FRAME
from tests.tasks.moving_square import square_clip, write_davis


def dino_file(folder: Path) -> str:
    """A ViT of two narrow blocks in the place of a published one."""
    keys = DinoKeys(channels=64, num_blocks=2, num_heads=1)
    save_file(keys.vit.state_dict(), folder / "dino.safetensors")
    return str(folder / "dino.safetensors")


@pytest.mark.parametrize("algorithm", ["k-means", "spectral"])
def test_a_baseline_is_scored_like_a_model(tmp_path: Path, algorithm: str) -> None:
    benchmark = open_benchmark("davis16", str(write_davis(tmp_path / "davis", {"square": square_clip(4)})))
    job = EvaluationJob(
        model_uri="",
        baseline=ClusteringBaseline(algorithm=algorithm, num_segments=2),  # type: ignore[arg-type]
        merging=MergingFeatures(weights=dino_file(tmp_path)),
        num_pictured=0,
    )
    report = evaluate(job, benchmark).report
    assert report.model.experiment == f"{algorithm}-2"
    assert report.model.num_segments == 2
    assert GROUND_TRUTH_PER_FRAME in report.choices
    (sequence,) = report.sequences
    assert len(sequence.choices[GROUND_TRUTH_PER_FRAME].j) == 4


def test_without_weights_there_is_nothing_to_cluster() -> None:
    job = EvaluationJob(model_uri="", baseline=ClusteringBaseline(algorithm="k-means", num_segments=4))
    with pytest.raises(WeightsError, match=r"k-means-4 clusters DINO keys and got none.*--feature-weights"):
        SequenceWorker(job)
