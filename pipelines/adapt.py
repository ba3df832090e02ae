"""Flow ``adapt-gwm``: each clip gets a few steps of training of its own, and is then segmented (GWM, Table 4)."""

from __future__ import annotations

from typing import Any, cast

from prefect import flow

from pipelines.evaluate import find_model
from pipelines.segment import name_model, publish_clips, segment_clips
from tasks.adapt import AdaptationOptions, AdaptationRate


@flow(name="adapt-gwm")
def adapt_footage(
    inputs: list[str],
    model: str,
    out: str = "adapted",
    steps: int = 20,
    estimator: str = "dis",
    weights: str | None = None,
    learning_rate: float | None = None,
    rate: str = "final",
    crf: str | None = None,
) -> dict[str, Any]:
    """Adapt a model to each clip separately and segment the clips into the folder ``out``; no label is involved.

    steps: updates per clip, by the settings of the model's training (paper: 20). rate: final, where it ended, or full.
    learning_rate: instead of either. crf: refines masks by a dense CRF: gwm or rcf.
    estimator, weights: optical flow to adapt by and to choose the foreground by.
    Returns a row per clip that tells what adaptation did, or why a clip was segmented without it.
    """
    reference = name_model(model)
    folder = find_model(reference)
    options = AdaptationOptions(num_steps=steps, rate=cast(AdaptationRate, rate), learning_rate=learning_rate)
    result = segment_clips(inputs, folder, out, estimator, weights, options, crf, reference=reference)
    publish_clips(result)
    return result
