"""What the rows of an ingest hold: as the user says it, or as the dataset was made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prefect import task

from pipelines.retries import NOT_FOR_BAD_INPUT
from tasks.catalog import present_videos
from tasks.gaps import parse_gaps
from tasks.identity import DEFAULT_JPEG_QUALITY, Recipe, ShotDetection
from tasks.ingest import make_recipe


@dataclass(frozen=True, kw_only=True)
class RecipeRequest:
    """A recipe in the words of the command line.

    weights, sha256: of the estimator, where they are not those that its name stands for. kept_from: dataset whose
    recipe is taken instead, if it has one; only ``weights``, a place and no part of a recipe, is still asked then.
    """

    estimator: str = "dis"
    weights: str | None = None
    sha256: str | None = None
    gaps: str = "davis"
    fps: float | None = None
    max_side: int | None = None
    jpeg_quality: int = DEFAULT_JPEG_QUALITY
    shots: ShotDetection = "auto"
    kept_from: str | None = None


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def choose_recipe(request: RecipeRequest) -> Recipe:
    """Fix everything that decides what rows hold; fetches the estimator's weights, so that this fails first."""
    if request.kept_from is not None and (used := recipe_in_use(request.kept_from)) is not None:
        return make_recipe(
            flow_estimator=used.flow_estimator,
            weights=request.weights,
            weights_sha256=used.flow_weights_sha256,
            gaps=used.gaps,
            fps=used.fps,
            max_side=used.max_side,
            jpeg_quality=used.jpeg_quality,
            shots=used.shots,
        )
    return make_recipe(
        flow_estimator=request.estimator,
        weights=request.weights,
        weights_sha256=request.sha256,
        gaps=parse_gaps(request.gaps),
        fps=request.fps,
        max_side=request.max_side,
        jpeg_quality=request.jpeg_quality,
        shots=request.shots,
    )


def recipe_in_use(dataset: str) -> Recipe | None:
    """Return the recipe that most videos of a dataset were made with; None where there are none."""
    videos = present_videos(dataset)
    recipes = {video.recipe_hash: video.recipe for video in videos}
    most = Counter(video.recipe_hash for video in videos).most_common(1)
    return recipes[most[0][0]] if most else None
