"""What scoring videos and scoring images share: places that can be written to, and how many are scored at once."""

from __future__ import annotations

from tasks.devices import num_cpus
from tasks.errors import ConfigError
from tasks.evaluate import Evaluation
from tasks.evaluate_images import ImageEvaluation
from tasks.settings import Settings
from tasks.storage import location, prove_writable


def require_writable(json_file: str | None, report: str | None) -> None:
    """Try the places that scores and page will go to, before minutes of scoring; raises StorageError or ConfigError."""
    if json_file is not None and location(json_file).is_folder():
        raise ConfigError(f"scores can not be written to {json_file}, a folder: name a file, such as scores.json")
    for folder in (location(json_file).parent if json_file else None, location(report) if report else None):
        if folder is not None:
            prove_writable(folder)


def scored_at_once(settings: Settings, count: int) -> int | None:
    """Sequences or images scored at once; None scores in this process, where Ray would only cost its start."""
    if settings.ray_address is not None:
        return count
    at_once = min(count, settings.ray_cpus or num_cpus())
    return at_once if at_once > 1 else None


def write_scores(evaluation: Evaluation | ImageEvaluation, json_file: str | None, report: str | None) -> str | None:
    """Write the scores and the page that were asked for; return the page's file."""
    page = location(report) / "index.html" if report else None
    evaluation.write(json_file=location(json_file) if json_file else None, html_file=page)
    return page.uri if page else None
