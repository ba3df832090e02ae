"""The dense CRF in evaluation: better masks of a known object, and no number with it that looks like one without."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from model.dense_crf import CRF_PRESETS
from tasks.benchmarks import Benchmark, open_benchmark
from tasks.decode import Frame
from tasks.errors import InputError
from tasks.evaluate import EvaluationJob, EvaluationProgress, evaluate, log_evaluation
from tasks.evaluate_sequence import evaluate_sequence
from tasks.refine import build_refiner, foreground_mask, foreground_masks
from tasks.scores import LABEL_FREE
from tasks.segment import SegmentOptions, segment
from tasks.segment_clip import ClipSegmenter
from tasks.settings import Settings
from tasks.tracking import find_or_create_run, mlflow_client
from tests.tasks.moving_square import ColourMethod, loaded, overlap, square_clip, write_davis
from tests.tasks.tiny_models import saved_model

COARSE = (18, 24)  # a quarter of the frames' size, as networks see them


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    return open_benchmark("davis16", str(write_davis(tmp_path / "davis", {"dog": square_clip(5)})))


@pytest.mark.parametrize("name", list(CRF_PRESETS))
def test_refined_masks_follow_the_object(name: str, benchmark: Benchmark) -> None:
    (dog,) = benchmark.sequences
    frames: list[tuple[int, int]] = []
    coarse = evaluate_sequence(ClipSegmenter(ColourMethod(COARSE), None), dog).scores
    refined = evaluate_sequence(
        ClipSegmenter(ColourMethod(COARSE), None),
        dog,
        num_pictured=1,
        refiner=build_refiner(name),
        on_frame=lambda done, total: frames.append((done, total)),
    )
    assert frames == [(done, 5) for done in range(1, 6)]
    assert refined.scores.foreground == coarse.foreground
    for choice, values in refined.scores.choices.items():
        assert values.segments == coarse.choices[choice].segments  # chosen from the masks as they are
    before, after = coarse.choices[LABEL_FREE], refined.scores.choices[LABEL_FREE]
    assert np.mean(before.j) < 0.95 < min(after.j)
    assert np.mean(after.f) > np.mean(before.f)
    assert f"label-free foreground, CRF {name}" in refined.rows[0].tiles


def test_the_mask_of_a_frame_is_refined_by_that_frame() -> None:
    frames, masks = square_clip(3)
    frames = [cv2.resize(frame, (0, 0), fx=2, fy=2, interpolation=cv2.INTER_NEAREST) for frame in frames]
    frames[1].flags.writeable = False
    with ClipSegmenter(ColourMethod(COARSE), None).segment_clip(frames) as segments:
        size = frames[1].shape[:2]
        coarse = foreground_mask(segments, 1, frames[1], None)
        assert np.array_equal(coarse, segments.mask(1, (size[0], size[1])))
        refined = foreground_mask(segments, 1, frames[1], build_refiner("gwm"))
    known = cv2.resize(masks[1].astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    assert overlap(coarse, known) < 0.95 < overlap(refined, known)
    assert build_refiner(None) is None


def test_every_number_tells_of_the_crf(benchmark: Benchmark, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    seen: list[EvaluationProgress] = []
    plain = evaluate(EvaluationJob(model_uri=model, num_pictured=0), benchmark, on_progress=seen.append)
    assert [(now.num_refined, now.j is None) for now in seen] == [(0, False)]
    seen.clear()
    job = EvaluationJob(model_uri=model, num_pictured=1, crf="gwm")
    evaluation = evaluate(job, benchmark, on_progress=seen.append)
    assert [(now.num_refined, now.num_frames, now.num_done) for now in seen] == [
        *((done, 5, 0) for done in range(1, 6)),
        (0, 0, 1),
    ]
    document = json.loads(evaluation.report.to_json())
    assert document["crf"]["name"] == "gwm"
    assert document["crf"]["position_px"] == 67
    numbers = [document["headline"], *document["scores"], *document["sequences"][0]["scores"]]
    assert {score["crf"] for score in numbers} == {"gwm"}
    metrics = evaluation.report.metrics()
    assert all("/crf-gwm" in key for key in metrics)
    assert "davis16/J/gwm/label-free/crf-gwm/dog" in metrics
    assert not set(metrics) & set(plain.report.metrics())
    assert json.loads(plain.report.to_json())["crf"] is None
    page = evaluation.to_html()
    assert "Label-free, CRF gwm" in page
    assert "masks refined by a dense CRF, gwm" in page
    assert "Label-free, CRF" not in plain.to_html()
    assert "refined by" not in plain.to_html()


def test_refined_scores_are_logged_beside_the_others(benchmark: Benchmark, tmp_path: Path) -> None:
    settings = Settings()
    run = find_or_create_run(settings, "training-1", tags={}, params={})
    model = saved_model(tmp_path / "model", run_id=run.run_id)
    log_evaluation(evaluate(EvaluationJob(model_uri=model, num_pictured=0, crf="rcf"), benchmark), settings)
    client = mlflow_client(settings)
    assert client.get_metric_history(run.run_id, "davis16/J/gwm/label-free/crf-rcf")
    assert not client.get_metric_history(run.run_id, "davis16/J/gwm/label-free")
    folder = "evaluation/crf-rcf/davis16"
    assert {file.path for file in client.list_artifacts(run.run_id, folder)} >= {f"{folder}/scores.json"}


def test_an_unknown_setting_is_refused_before_the_work() -> None:
    with pytest.raises(InputError, match=r"'soft'.*gwm, rcf"):
        EvaluationJob(model_uri="nowhere", crf="soft")


def test_masks_are_refined_side_by_side_in_the_order_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, _ = square_clip(7)
    frames = [
        Frame(index=index, time_seconds=index / 24, image=picture, source_name="")
        for index, picture in enumerate(pictures)
    ]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    refiner = build_refiner("gwm")
    assert refiner is not None
    assert refiner.num_threads == 3
    with ClipSegmenter(ColourMethod(COARSE), None).segment_clip(pictures) as segments:
        for count in (7, 2):  # more than threads, and fewer
            found = list(foreground_masks(segments, frames[:count], refiner))
            assert [frame.index for frame, _ in found] == list(range(count))
            for frame, mask in found:
                assert np.array_equal(mask, foreground_mask(segments, frame.index, frame.image, refiner))


def test_segment_refines_what_it_writes(tmp_path: Path) -> None:
    frames, masks = square_clip(4)
    (tmp_path / "fox").mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"fox/{index:05d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    fits = {}
    for crf in (None, "gwm"):
        out = tmp_path / f"out_{crf}"
        options = SegmentOptions(crf=crf)
        segment([str(tmp_path / "fox")], loaded(ColourMethod(COARSE)), out, estimator=None, options=options)
        assert json.loads((out / "fox/result.json").read_text())["crf"] == crf
        assert ("refined by a dense CRF, gwm" in (out / "fox/index.html").read_text()) is (crf is not None)
        written = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0 for path in sorted((out / "fox/masks").iterdir())]
        fits[crf] = np.mean([overlap(mask, known) for mask, known in zip(written, masks, strict=True)])
    assert fits[None] < 0.95 < fits["gwm"]
    with pytest.raises(InputError, match="'soft'"):
        segment(
            [str(tmp_path / "fox")],
            loaded(ColourMethod(COARSE)),
            tmp_path / "out",
            estimator=None,
            options=SegmentOptions(crf="soft"),
        )
