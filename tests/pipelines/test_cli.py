"""The command line as its users meet it: help, exit status, and what is said when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands import data
from pipelines.commands.models import split
from tasks.dead_letters import Refusal, record_rejected
from tasks.identity import DEFAULT_JPEG_QUALITY
from tasks.ingest import DEFAULT_BATCH_VIDEOS
from tasks.ingest_plan import MAX_ATTEMPTS
from tests.architecture import ROOT

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]  # of a click group

NOTHING_HEAVY = """
import sys
from typer.testing import CliRunner
from pipelines.cli import app
result = CliRunner().invoke(app, ["--help"])
assert result.exit_code == 0 and "segment" in result.output, result.output
heavy = {"torch", "ray", "prefect", "mlflow", "pyarrow", "pydantic", "cv2", "av"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: gwm {command}" in result.output


def test_help_imports_nothing_that_takes_seconds() -> None:
    subprocess.run([sys.executable, "-c", NOTHING_HEAVY], cwd=ROOT, check=True, timeout=60)


def test_the_installed_script_tells_its_version_and_needs_a_command() -> None:
    script = Path(sys.executable).with_name("gwm")
    version = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert version.stdout.split()[0] == "gwm"
    nothing = subprocess.run([script], capture_output=True, text=True, check=False, timeout=60)
    assert nothing.returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["ingest", "--dataset", "x"],
        ["ingest", "video.mp4"],
        ["ingest", "video.mp4", "--dataset", "x", "--fps", "0"],
        ["ingest", "video.mp4", "--dataset", "x", "--max-side", "wide"],
        ["ingest", "video.mp4", "--dataset", "x", "--max-rejected", "101"],
        ["plan", "video.mp4", "--dataset", "x", "--max-attempts", "0"],
        ["train", "--experiment", "debug"],
        ["evaluate", "--model", "m"],
        ["retrain", "video.mp4", "--dataset", "x", "--model", "m", "--benchmark", "davis16"],
        ["up", "--prefect-port", "70000"],
    ],
)
def test_misuse_is_status_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["datasets", "{tmp}/none"], {}, "no dataset at"),
        (["show", "{tmp}/none"], {}, "no dataset at"),
        (["trace", "{tmp}/file.txt"], {}, "nothing of ours is there; expected a mask"),
        (["rejected", "{tmp}/none"], {}, "no dataset at"),
        (["rejected", "{tmp}/none", "--reason", "ugly"], {}, "no reason 'ugly' for a refusal: expected all, not_found"),
        (["plan", "{tmp}/none", "--dataset", "{tmp}/d", "--retry", "ugly"], {}, "no reason 'ugly'"),
        (["down"], {"GWM_RAY_CPUS": "0"}, "GWM_RAY_CPUS='0': Input should be greater than or equal to 1"),
        (["down"], {"GWM_DEVICE": "tpu"}, "GWM_DEVICE='tpu'"),
        (["down"], {"GWM_DECODE_THREADS": "two"}, "GWM_DECODE_THREADS='two': Input should be a valid integer"),
        (["down"], {"GWM_DECODE_THREADS": "0"}, "GWM_DECODE_THREADS=0: expected a number above 0"),
        (["down"], {"GWM_DECODE_THREAD": "1"}, "GWM_DECODE_THREAD='1': no such setting"),
        (["down"], {"GWM_HOME": "{tmp}/file.txt"}, "set it to one that you may write to"),
        (["render", "{tmp}/file.txt"], {}, "file.txt is not writable"),
        (["render", "s3://bucket/footage"], {}, "is not on this machine; expected a local path"),
    ],
)
def test_an_error_of_ours_is_one_message_and_status_1(
    arguments: list[str], environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("in the way")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    environment = {name: value.format(tmp=tmp_path) for name, value in environment.items()}
    result = CliRunner().invoke(app, arguments, env=environment)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_debug_lets_the_exception_through(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--debug", "datasets", str(tmp_path / "none")])
    assert type(result.exception).__name__ == "DatasetError"


@pytest.mark.parametrize(("text", "names"), [(None, None), ("a", ["a"]), ("a, b,,c", ["a", "b", "c"])])
def test_lists_of_names_are_split(text: str | None, names: list[str] | None) -> None:
    assert split(text) == names


def test_names_can_not_write_on_the_terminal(tmp_path: Path) -> None:
    source = "/f/a\nb\t\x1b[31m[bold]\u202e.mp4"
    refusal = Refusal(source=source, stage="hash", reason="not_found", detail="gone\r\n")
    record_rejected(str(tmp_path), [refusal, Refusal(source="/f/b", stage="ingest", reason="corrupt", detail="")])
    result = CliRunner().invoke(app, ["rejected", str(tmp_path), "--reason", "not_found", "--json", f"{tmp_path}/r"])
    assert result.exit_code == 0, result.output
    header, row, count = result.output.splitlines()
    cells = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert cells["source"] == r"/f/a\nb\t\x1b[31m[bold]\u202e.mp4"
    assert (cells["id"], cells["stage"], cells["attempts"], cells["detail"]) == ("", "hash", "1", r"gone\r\n")
    assert count == "1 refused: 1 not_found"
    (letter,) = json.loads((tmp_path / "r").read_text())
    assert letter["source"] == source


def test_defaults_that_help_shows_are_those_of_the_work() -> None:
    assert (data._MAX_ATTEMPTS, data._JPEG_QUALITY) == (MAX_ATTEMPTS, DEFAULT_JPEG_QUALITY)
    assert data._BATCH_VIDEOS == DEFAULT_BATCH_VIDEOS
