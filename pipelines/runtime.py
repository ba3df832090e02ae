"""What the environment must hold before Prefect, Ray or MLflow are imported: quiet, local, at home.

Nothing here runs on import and nothing heavy is imported. The command line calls ``prepare_environment``
first; flow runs under a worker inherit it from ``gwm up``. A variable that is already set is never touched.
"""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipelines.services import running_url
from tasks.errors import ConfigError, InputError
from tasks.s3_setting import job_environment
from tasks.settings import Settings

PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The checkout (or site-packages): prefect.yaml lies here, and deployments run from here."""

EXPERIMENTS = Path(__file__).resolve().parent / "experiments"
"""Folder of the presets."""


def project_version() -> str:
    """Return the installed version."""
    return metadata.version("gwm")


def load_settings() -> Settings:
    """Read the settings from the environment; raises ConfigError naming each variable that does not fit."""
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors())
        raise ConfigError(f"settings are not valid: {problems}") from error
    try:
        settings.home_path  # noqa: B018 - makes the folder
    except OSError as error:
        raise ConfigError(
            f"GWM_HOME={settings.home}: can not make the folder ({error.strerror}); set it to one that you may write to"
        ) from error
    return settings


def _problem(item: ErrorDetails) -> str:
    """Name the variable, which for a part of a setting has the names of both, such as GWM_DECODE_THREADS."""
    if isinstance(cause := item.get("ctx", {}).get("error"), InputError):
        return str(cause)  # names it
    variable = f"GWM_{'_'.join(map(str, item['loc']))}".upper()
    what = "no such setting" if item["type"] == "unexpected_keyword_argument" else item["msg"]
    return f"{variable}={item['input']!r}: {what}"


def environment_defaults(settings: Settings, *, debug: bool = False) -> dict[str, str]:
    """Return what to set where it is unset: no telemetry, no logs on the terminal, everything under home."""
    home = settings.home_path
    variables = {
        "DO_NOT_TRACK": "1",
        "GIT_PYTHON_REFRESH": "quiet",  # MLflow looks for git; a machine without it is fine
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Making its database takes 10 s on a free machine; the default of 20 is too short for a busy one.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        **job_environment(),
    }
    if not debug:
        # Prefect prints the traceback of every failed run; the command line says it in one sentence.
        variables["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    if api_url := running_url("prefect", settings):
        variables["PREFECT_API_URL"] = api_url
    return variables


def prepare_environment(settings: Settings, *, debug: bool = False) -> None:
    """Set what is unset. Call it before the first import of Prefect, Ray or MLflow."""
    for name, value in environment_defaults(settings, debug=debug).items():
        os.environ.setdefault(name, value)
