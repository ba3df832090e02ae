"""Optical flow that can not be stored as it is: cut and reported, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tasks import ingest_worker
from tasks.errors import InputError
from tasks.ingest import prepare_ingest
from tasks.ingest_batch import _Batch, silent
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.pool import PoolResult
from tests.tasks.small_footage import HEIGHT, RECIPE, WIDTH, write_clip


class _FarEstimator:
    """Says that everything moves by ``flow_px``, and three components of every pair by 600 px."""

    name, weights_sha256 = "far", None

    def __init__(self, flow_px: float) -> None:
        self._flow_px = flow_px

    def encode(self, frame: Tensor) -> Tensor:
        return frame

    def flow(self, pairs: Sequence[tuple[object, object]]) -> Tensor:
        flow = torch.full((len(pairs), 2, HEIGHT, WIDTH), self._flow_px)
        flow[:, 0, 5, 7:10] = 600
        return flow


def _ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow_px: float) -> _Batch:
    write_clip(tmp_path / "clip", 3, 0)
    dataset = str(tmp_path / "dataset")
    (video,) = prepare_ingest([str(tmp_path / "clip")], dataset, RECIPE).videos
    monkeypatch.setattr(ingest_worker, "estimator_of", lambda job: _FarEstimator(flow_px))
    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)
    batch = _Batch(dataset, RECIPE, 1, 300, silent)
    batch.take(PoolResult(item=video, status="done", attempts=1, value=work))
    return batch


def test_what_was_cut_is_counted_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outcome,) = _ingest(tmp_path, monkeypatch, 2.0).outcomes
    num_pairs = sum(max(0, 3 - abs(gap)) for gap in RECIPE.gaps)
    assert outcome.status == "ingested"
    assert outcome.explanation.startswith("new")
    assert outcome.explanation.endswith(f"; {3 * num_pairs} components of its optical flow were cut to 512 px")


def test_an_estimator_that_fails_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        _ingest(tmp_path, monkeypatch, float("nan"))
    assert not list((tmp_path / "dataset" / "frames").glob("*"))
