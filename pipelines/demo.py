"""The whole path on a fresh machine: render footage, ingest it, train, evaluate, segment. Run by ``make demo``.

Everything lands in one folder. Each step looks for what it left the last time, so a second run goes on where the first
one stopped.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipelines.console import ConsoleProgress
from pipelines.local_stack import MLFLOW_PORT, mlflow_command
from pipelines.runtime import load_settings, prepare_environment
from tasks.rendering import render_footage
from tasks.settings import Settings

PRESET = "demo"
MODEL = "demo"
ELSEWHERE = ("GWM_MLFLOW_TRACKING_URI", "GWM_RUNS_URI", "PREFECT_API_URL", "PREFECT_HOME")
"""Variables that would send the demo's records to other servers and folders."""
Result = TypeVar("Result")


def run_demo(folder: Path) -> None:
    """Run every step into ``folder`` and print where to look."""
    settings = at_home_in(folder)
    # Prefect reads its environment when it is imported, so the flows come after it.
    from pipelines.evaluate import evaluate_model
    from pipelines.ingest import ingest_footage
    from pipelines.segment import segment_footage
    from pipelines.train import train_gwm
    from tasks.cluster import ray_session

    report, masks, footage = folder / "report", folder / "masks", folder / "rendered"
    started = time.monotonic()
    clips = _step("1/5 render footage", lambda: _render(footage))
    with ray_session(settings):  # one local Ray for all steps; each would start its own otherwise
        dataset = str(folder / "dataset")
        _step("2/5 ingest", lambda: ingest_footage([str(footage / "footage")], dataset))
        trained = _step("3/5 train", lambda: train_gwm(dataset, PRESET, register_as=MODEL))
        model = trained["registered"]
        scores = _step(
            "4/5 evaluate",
            lambda: evaluate_model(
                model, "rendered", str(footage), json_file=str(folder / "scores.json"), report=str(report)
            ),
        )
    _step("5/5 segment", lambda: segment_footage([str(clips[0])], model, str(masks)))
    _tell_where_to_look(folder, clips[0].stem, scores, settings, time.monotonic() - started)


def at_home_in(folder: Path) -> Settings:
    """Keep MLflow, Prefect and checkpoints of the demo inside its folder, whatever the environment says."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ELSEWHERE:
        os.environ.pop(name, None)
    os.environ["GWM_HOME"] = str(folder / "home")
    settings = load_settings()
    prepare_environment(settings)
    return settings


def _render(footage: Path) -> list[Path]:
    with ConsoleProgress("render") as progress:
        clips = render_footage(footage, on_progress=progress)
    return [clip.video for clip in clips]


def _step(name: str, work: Callable[[], Result]) -> Result:
    started = time.monotonic()
    _say(f"\n== {name}")
    result = work()
    _say(f"   done in {time.monotonic() - started:.0f} s")
    return result


def _tell_where_to_look(folder: Path, clip: str, scores: dict[str, Any], settings: Settings, seconds: float) -> None:
    command = [str(Path(sys.executable).with_name("mlflow")), *mlflow_command(settings)[3:]]
    _say(
        f"\nlabel-free J {scores['headline']:.3f} on the rendered clips, {seconds / 60:.1f} minutes in all\n\n"
        f"report   {scores['page']}\n"
        f"overlay  {folder / 'masks' / clip / 'overlay.mp4'}\n"
        f"masks    {folder / 'masks' / 'index.html'}\n"
        f"MLflow   {shlex.join(command)}\n"
        f"         and open http://127.0.0.1:{MLFLOW_PORT}"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_demo(Path(sys.argv[1] if len(sys.argv) > 1 else ".demo").resolve())
