"""What ``gwm plan`` shows: the plan that ``ingest-footage`` would carry out, and what that would cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipelines.console import ConsoleProgress
from pipelines.datasets import readable_bytes
from pipelines.recipe import RecipeRequest, choose_recipe
from pipelines.runtime import load_settings
from tasks.catalog import present_videos
from tasks.ingest import prepare_ingest
from tasks.ingest_plan import IngestPolicy
from tasks.plan_cost import Cost, estimate_cost
from tasks.plan_footage import read_headers
from tasks.plan_report import plan_lines, plan_totals


def plan_footage(
    sources: list[str], dataset: str, request: RecipeRequest, policy: IngestPolicy, *, cost: bool
) -> dict[str, Any]:
    """Plan as the flow does, read the headers of what would be ingested, and process a sample of it if ``cost``.

    Nothing is written. Returns lines, totals and the cost (None without a sample), as plain values for JSON.
    """
    recipe = choose_recipe.fn(request)
    with ConsoleProgress("read footage") as progress:
        plan = prepare_ingest(sources, dataset, recipe, policy=policy, read_only=True, on_progress=progress)
    with ConsoleProgress("read headers") as progress:
        footage = read_headers(plan.to_ingest, recipe, progress)
    estimated = estimate_cost(plan, dataset, footage, load_settings(), weights=request.weights) if cost else None
    lines = plan_lines(plan, footage, present_videos(dataset))
    return {
        "dataset": dataset,
        "recipe": recipe.model_dump(mode="json"),
        "videos": [asdict(line) for line in lines],
        "totals": [asdict(total) for total in plan_totals(lines)],
        "cost": None if estimated is None else asdict(estimated),
        "cost_lines": [] if estimated is None else cost_lines(estimated),
    }


def cost_lines(cost: Cost) -> list[str]:
    """Say what an ingest will take, how large the sample was, and how far it spreads."""
    seconds, percent = cost.worker_seconds, 100.0 * cost.num_samples / cost.num_videos
    lines = [
        f"sample:  {cost.num_samples} of {cost.num_videos} videos ({percent:.1f} %), "
        f"{cost.num_sampled_frames} frames, really processed",
        f"compute: {duration_text(seconds.expected)} of one worker ({duration_text(seconds.low)} to "
        f"{duration_text(seconds.high)}); {duration_text(seconds.expected / cost.num_workers)} on {cost.num_workers}",
        f"stored:  {readable_bytes(cost.stored_bytes.expected)} ({readable_bytes(cost.stored_bytes.low)} to "
        f"{readable_bytes(cost.stored_bytes.high)})",
    ]
    if cost.num_untold:
        lines.append(f"without  {cost.num_untold} videos whose length is not known beforehand")
    return [*lines, *(f"sample refused: {problem}" for problem in cost.problems)]


def duration_text(seconds: float) -> str:
    """Write seconds in the unit that suits them.

    >>> duration_text(42.4), duration_text(5400)
    ('42.4 s', '1.5 h')
    """
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
