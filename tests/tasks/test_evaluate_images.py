"""Evaluation on still images, end to end: known masks, every number labelled, sizes of any kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.errors import InputError
from model.image_metrics import IMAGE_MEASURES, score_image
from model.methods import build_method
from model.methods.base import AnySizeMethod
from model.methods.gwm import GwmConfig
from model.types import Segmentation
from tasks.benchmarks.images import ImageBenchmark, open_image_benchmark
from tasks.errors import DatasetError, ModelNotFoundError
from tasks.evaluate_image import ImageResult, ImageSegmenter, evaluate_image, network_size_for, parse_network_size
from tasks.evaluate_images import (
    ImageEvaluationJob,
    ImageProgress,
    _Collected,
    evaluate_images,
    log_image_evaluation,
)
from tasks.foreground_choices import (
    BORDER_RULE,
    GROUND_TRUTH_PER_IMAGE,
    IMAGE_FOREGROUND_CHOICES,
    LABEL_FREE,
    ORACLE_PER_IMAGE,
)
from tasks.refine import MaskRefiner
from tasks.settings import Settings
from tests.tasks.moving_square import ColourMethod
from tests.tasks.small_images import write_images

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def three_images(tmp_path: Path) -> ImageBenchmark:
    """Of 41x33 pixels, which neither 16 nor 32 divides; PNG, so that the object is of one colour."""
    write_images(tmp_path, "ecssd", ["a", "b", "c"], height=41, width=33, extension="png")
    return open_image_benchmark("ecssd", str(tmp_path))


class ColourAtAnySize(ColourMethod):
    """Segments by colour at the size that is asked for; implements ``AnySizeMethod`` as well."""

    def segment_at(self, images: Tensor, size: tuple[int, int]) -> Segmentation:
        self.size = size
        return self.segment(images)


def test_known_object_scores_one_at_native_size(three_images):
    method = ColourAtAnySize()
    segmenter = ImageSegmenter(method, features=None)  # type: ignore[arg-type]
    for image in three_images.images:
        result = evaluate_image(segmenter, image)
        assert method.size == (41, 33)
        assert result.row.size == (41, 33)
        assert set(result.row.choices) == set(IMAGE_FOREGROUND_CHOICES)
        for choice in (LABEL_FREE, BORDER_RULE, GROUND_TRUTH_PER_IMAGE, ORACLE_PER_IMAGE):
            assert result.row.choices[choice].segments == (1,)
            assert result.row.choices[choice].j == 1
            assert result.row.choices[choice].f_beta == 1
        assert result.row.rule == "appearance"
        assert list(result.tiles) == ["image", "segments", "label-free foreground", "annotation"]


def test_scores_are_those_of_the_soft_mask_at_the_image_size(three_images):
    coarse = ImageSegmenter(ColourAtAnySize(), features=None, network_size="12x9")  # type: ignore[arg-type]
    image = three_images.images[0]
    picture, annotation = image.load()
    result = evaluate_image(coarse, image, pictured=False)
    segments = coarse.segment(coarse.image(picture)).probabilities
    soft = F.interpolate(segments, (41, 33), mode="bilinear", align_corners=False)[0, 1]
    expected = score_image(soft, torch.from_numpy(annotation))
    found = result.row.choices[LABEL_FREE]
    assert 0.5 < found.j < 1
    assert (found.j, found.accuracy) == (pytest.approx(expected.j), pytest.approx(expected.accuracy))
    assert found.mean_absolute_error == pytest.approx(expected.mean_absolute_error)
    np.testing.assert_allclose(result.f_curves[LABEL_FREE], expected.f_curve.numpy())
    assert result.tiles == {}


def test_refined_masks_are_scored_and_choices_are_made_before(three_images):
    coarse = ImageSegmenter(ColourAtAnySize(), features=None, network_size="12x9")  # type: ignore[arg-type]
    image, refiner = three_images.images[0], MaskRefiner("rcf")
    picture, annotation = image.load()
    plain = evaluate_image(coarse, image).row.choices[LABEL_FREE]
    found = evaluate_image(coarse, image, refiner=refiner)
    segments = coarse.segment(coarse.image(picture)).probabilities
    soft = F.interpolate(segments, (41, 33), mode="bilinear", align_corners=False)[0, 1]
    expected = score_image(refiner.soft_mask(picture, soft), torch.from_numpy(annotation))
    refined = found.row.choices[LABEL_FREE]
    assert refined.segments == plain.segments
    assert refined.j == pytest.approx(expected.j) != plain.j
    assert refined.mean_absolute_error == pytest.approx(expected.mean_absolute_error)


def test_oracle_bounds_and_merging_needs_features(three_images):
    class Featureless(ColourAtAnySize):
        def segment(self, images: Tensor) -> Segmentation:
            return Segmentation(probabilities=super().segment(images).probabilities)

    segmenter = ImageSegmenter(Featureless(), features=None)  # type: ignore[arg-type]
    row = evaluate_image(segmenter, three_images.images[0]).row
    assert set(row.choices) == {LABEL_FREE, ORACLE_PER_IMAGE}

    class Noise(ColourAtAnySize):
        def segment(self, images: Tensor) -> Segmentation:
            noise = torch.rand(1, 4, *self.size, generator=torch.Generator().manual_seed(3))
            return Segmentation(probabilities=(5 * noise).softmax(1), features=noise)

    noisy = Noise()
    noisy.num_segments = 4
    row = evaluate_image(ImageSegmenter(noisy, features=None), three_images.images[0]).row  # type: ignore[arg-type]
    best = row.choices[ORACLE_PER_IMAGE].j
    assert all(choice.j <= best for choice in row.choices.values())
    assert row.choices[BORDER_RULE].j <= row.choices[GROUND_TRUTH_PER_IMAGE].j


def test_network_looks_at_any_size_and_padding_is_taken_off():
    torch.manual_seed(0)
    method = build_method(GwmConfig(base_channels=2, image_size=(32, 48), flow_size=(32, 48))).eval()
    assert isinstance(method, AnySizeMethod)
    images = torch.randint(0, 256, (1, 3, 41, 33), dtype=torch.uint8)
    native = method.segment_at(images, (41, 33))
    assert native.probabilities.shape == (1, 4, 41, 33)
    assert torch.equal(method.segment_at(images, (32, 48)).probabilities, method.segment(images).probabilities)
    # far from the border of a large image, what lies beyond it makes no difference
    wide = torch.cat([images.float().repeat(1, 1, 5, 6), torch.zeros(1, 3, 205, 90)], dim=-1)
    alone, beside = (method.segment_at(part, (205, part.shape[-1])) for part in (wide[..., :192], wide[..., :256]))
    difference = (alone.probabilities - beside.probabilities[..., :192]).abs()[..., :16]
    assert difference.max() < 1e-5
    with pytest.raises(InputError, match="16 rows and columns at least"):
        method.segment_at(images, (15, 33))


def test_sizes_as_people_write_them():
    assert parse_network_size("native") == "native"
    assert parse_network_size("model") == "model"
    assert parse_network_size("256x384") == (256, 384)
    for text in ("", "256", "axb", "256x-1", "Native"):
        with pytest.raises(InputError, match=r"expected native .* model .* auto, .* 256x384"):
            parse_network_size(text)
    with pytest.raises(InputError, match="network size 'big'"):
        ImageEvaluationJob(model_uri="", network_size="big")
    assert [network_size_for("auto", name) for name in ("maskformer", "unet")] == ["native", "model"]
    assert network_size_for("native", "unet") == "native"
    with pytest.raises(InputError, match="its own size only: expected network size model"):
        ImageSegmenter(ColourMethod(), features=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("network_size", "decided"), [("native", "native"), ("auto", "model"), ("32x32", "32x32")])
def test_every_number_is_labelled(three_images, model_uri, network_size, decided):
    seen: list[ImageProgress] = []
    job = ImageEvaluationJob(model_uri=model_uri, network_size=network_size, num_pictured=2)
    evaluation = evaluate_images(job, three_images, on_progress=seen.append)
    assert [(now.image, now.num_done, now.num_images) for now in seen] == [("a", 1, 3), ("b", 2, 3), ("c", 3, 3)]
    assert seen[-1].j == pytest.approx(evaluation.report.headline.value)
    document = json.loads(evaluation.report.to_json())
    assert document["coverage"] == "3 of 1000 images"
    assert len(document["scores"]) == len(IMAGE_MEASURES) * len(IMAGE_FOREGROUND_CHOICES)
    for score in [document["headline"], *document["scores"]]:
        assert score["uses_annotations"] is (score["foreground"] not in (LABEL_FREE, BORDER_RULE))
        assert score["checkpoint"] == "last step"
        assert score["network_size"] == decided
        assert score["coverage"] == "3 of 1000 images"
        assert 0 <= score["value"] <= 1
    assert (document["headline"]["foreground"], document["headline"]["measure"]) == (LABEL_FREE, "J")
    for image in document["images"]:
        assert all("uses_annotations" in score for score in image["scores"])


def test_averages_follow_from_the_images(three_images, model_uri):
    report = evaluate_images(ImageEvaluationJob(model_uri=model_uri, num_pictured=0), three_images).report
    for choice in IMAGE_FOREGROUND_CHOICES:
        rows = [image.choices[choice] for image in report.images]
        assert report.score("J", choice).value == pytest.approx(np.mean([row.j for row in rows]))
        assert report.score("accuracy", choice).value == pytest.approx(np.mean([row.accuracy for row in rows]))
        best = report.score("max_F_beta", choice)
        assert best.value >= report.score("F_beta", choice).value - 0.01  # 127 / 255 and 128 / 255 are not 0.5
        assert best.threshold in [k / 255 for k in range(1, 255)]
    metrics = report.metrics()
    assert metrics["ecssd/J/label-free"] == report.headline.value
    assert metrics["ecssd/MAE/oracle-per-image"] == report.score("MAE", ORACLE_PER_IMAGE).value


def test_best_threshold_is_one_for_all_images(three_images, model_uri):
    """One mask is right up to 0.3 and the other from 0.6 on: each has a perfect threshold, but no common one."""
    target = torch.zeros(2, 4, dtype=torch.bool)
    target[:, :2] = True
    low, high = torch.where(target, 0.3, 0.0), torch.where(target, 0.9, 0.6)
    curves = [score_image(soft, target).f_curve for soft in (low, high)]
    assert [curve.max().item() for curve in curves] == [1, 1]
    report = evaluate_images(ImageEvaluationJob(model_uri=model_uri, num_pictured=0), three_images).report
    collected = _Collected(0)
    for image, curve in zip(report.images, curves, strict=False):
        collected.add(ImageResult(row=image, f_curves={LABEL_FREE: curve.numpy()}, tiles={}))
    of_two = replace(report, images=report.images[:2], f_curves={LABEL_FREE: collected.curves[LABEL_FREE] / 2})
    best = of_two.score("max_F_beta", LABEL_FREE)
    assert best.value == pytest.approx(max((a + b) / 2 for a, b in zip(*map(list, curves), strict=True)))
    assert best.value < 1


def test_page_shows_the_worst_images_first(three_images, model_uri):
    evaluation = evaluate_images(ImageEvaluationJob(model_uri=model_uri, num_pictured=2), three_images)
    order = [image.name for image in evaluation.report.worst_first()]
    page = evaluation.to_html()
    assert page.index(f'id="{order[0]}"') < page.index(f'id="{order[1]}"')
    assert f'id="{order[2]}"' not in page
    body = page[page.index("<body>") :]
    assert body.index("no label seen") < body.index("saw annotations")
    for text in (
        "3 of 1000 images",
        "the size that it was trained at",
        "released notebook",
        "88.4",
    ):  # 88.43: GWM's accuracy
        assert text in body.replace("&#39;", "'")
    assert all(choice.title in body.lower() for choice in IMAGE_FOREGROUND_CHOICES.values())


def test_a_model_without_a_run_is_not_logged(three_images, model_uri):
    evaluation = evaluate_images(ImageEvaluationJob(model_uri=model_uri, num_pictured=0), three_images)
    assert log_image_evaluation(evaluation, Settings()) is None
    assert evaluation.pictures == {}


def test_missing_models_and_images_are_told(three_images, tmp_path):
    with pytest.raises(ModelNotFoundError, match="no model at"):
        evaluate_images(ImageEvaluationJob(model_uri=str(tmp_path)), three_images)
    with pytest.raises(DatasetError, match="no images to score"):
        evaluate_images(ImageEvaluationJob(model_uri=str(tmp_path)), replace(three_images, images=()))


@pytest.mark.slow
def test_ray_actors_find_the_same_as_one_process(three_images, model_uri, ray_cluster):
    job = ImageEvaluationJob(model_uri=model_uri, num_pictured=2)
    alone = evaluate_images(job, three_images)
    spread = evaluate_images(job, three_images, settings=Settings(device="cpu"), parallel=2)
    assert spread.report.images == alone.report.images
    assert set(spread.pictures) == set(alone.pictures)
