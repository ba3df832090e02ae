"""``gwm doctor``: what is installed, which accelerators, which weights, whether storage is writable and ports are free.

Every check returns findings and none of them raises: a doctor that faints is of no use. A finding that stops the
project from working is a ``fail``; one that costs something but has a way round is a ``warn``.
"""

from __future__ import annotations

import platform
import shutil
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Literal

import av
import psutil
import torch
from packaging.requirements import Requirement

from model.errors import GwmError
from pipelines import services
from pipelines.local_stack import MLFLOW_PORT, PREFECT_PORT
from tasks.commit_check import require_one_first_writer
from tasks.decode_session import confinement
from tasks.devices import num_cpus
from tasks.settings import Settings
from tasks.storage import location, prove_writable
from tasks.weights import NAMED_WEIGHTS, cached_file

Status = Literal["ok", "warn", "fail"]
NETWORK_SECONDS = 3.0
MIN_MEMORY_GB = 8  # what the demo's processes may take together
MIN_DISK_GB = 5
WEIGHTS_WANTED = {
    "raft-large-c-t-v1": "--estimator dis",
    "raft-small-c-t-v1": "--estimator dis",
    "dino-vit-s8": "--features decoder",
    "dino-vit-b8-timm": "--experiment gwm_unet",
}
"""Weights that options may ask for, and what does without each; ``gwm weights`` lists all there are."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's table."""

    area: str
    name: str
    status: Status
    detail: str


def examine(settings: Settings, *, places: tuple[str, ...] = (), offline: bool = False) -> list[Finding]:
    """Run every check; ``places`` are further URIs that must be writable, such as a dataset."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _accelerators,
        lambda: _machine(settings),
        _codecs,
        _confinement,
        lambda: _weights(settings, offline),
        lambda: _storage(settings, places),
        lambda: _ports(settings),
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    fits = (3, 11) <= sys.version_info[:2] < (3, 13)
    detail = f"{platform.python_version()} at {sys.executable}" + ("" if fits else "; needs 3.11 or 3.12")
    return [Finding(area="python", name="interpreter", status="ok" if fits else "fail", detail=detail)]


def _packages() -> list[Finding]:
    """Compare what is installed with what the project requires of it."""
    try:
        requirements = metadata.requires("gwm") or []
    except metadata.PackageNotFoundError:
        detail = "not installed, so neither is what it requires: run make setup"
        return [Finding(area="packages", name="gwm", status="fail", detail=detail)]
    return [_package(Requirement(line)) for line in requirements]


def _package(requirement: Requirement) -> Finding:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        detail = f"missing; needs {requirement}: run make setup"
        return Finding(area="packages", name=requirement.name, status="fail", detail=detail)
    fits = requirement.specifier.contains(version, prereleases=True)
    detail = version if fits else f"{version}; needs {requirement.specifier}: run make setup"
    return Finding(area="packages", name=requirement.name, status="ok" if fits else "fail", detail=detail)


def _accelerators() -> list[Finding]:
    if not torch.cuda.is_available():
        detail = "none; networks run on the CPU"
        return [Finding(area="accelerators", name="cuda", status="warn", detail=detail)]
    found = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        detail = f"{device.name}, {device.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}"
        found.append(Finding(area="accelerators", name=f"cuda:{index}", status="ok", detail=detail))
    return found


def _machine(settings: Settings) -> list[Finding]:
    memory_gb = psutil.virtual_memory().total / 2**30
    disk_gb = shutil.disk_usage(settings.home_path).free / 2**30
    return [
        Finding(area="machine", name="cpus", status="ok", detail=str(num_cpus())),
        Finding(
            area="machine",
            name="memory",
            status="ok" if memory_gb >= MIN_MEMORY_GB else "warn",
            detail=f"{memory_gb:.1f} GB (the demo takes up to {MIN_MEMORY_GB})",
        ),
        Finding(
            area="machine",
            name="disk",
            status="ok" if disk_gb >= MIN_DISK_GB else "warn",
            detail=f"{disk_gb:.0f} GB free at {settings.home_path}",
        ),
    ]


def _codecs() -> list[Finding]:
    """Look for what footage is read with, and the encoder that overlays are written with."""
    return [
        Finding(
            area="video",
            name=f"{kind} {name}",
            status="ok" if name in av.codecs_available else "fail",
            detail="available" if name in av.codecs_available else "missing in PyAV's libraries: reinstall av",
        )
        for kind, name in (("decoder", "h264"), ("decoder", "hevc"), ("decoder", "vp9"), ("encoder", "libx264"))
    ]


def _confinement() -> list[Finding]:
    """Decode in a process as untrusted footage is, and tell what holds it back on this machine."""
    try:
        found = confinement()
    except GwmError as error:
        return [Finding(area="video", name="decoding process", status="fail", detail=str(error))]
    holds = {"no network": found.has_no_network, "system calls filtered": found.has_filtered_calls}
    missing = [name for name, is_so in holds.items() if not is_so]
    if not missing:
        return [Finding(area="video", name="decoding process", status="ok", detail=", ".join(["confined", *holds]))]
    detail = f"limits on time and memory hold, not: {', '.join(missing)}; ingest only footage that you trust"
    return [Finding(area="video", name="decoding process", status="warn", detail=detail)]


def _weights(settings: Settings, offline: bool) -> list[Finding]:
    with ThreadPoolExecutor() as pool:  # a network that swallows requests costs its timeout once, not per file
        files = pool.map(
            lambda name: _weights_file(
                name, cached_file(name, settings.weights_path), NAMED_WEIGHTS[name].url, offline, WEIGHTS_WANTED[name]
            ),
            WEIGHTS_WANTED,
        )
        return [Finding(area="weights", name="dis", status="ok", detail="needs none"), *files]


def _weights_file(name: str, file: Path, url: str, offline: bool, instead: str) -> Finding:
    if file.is_file():
        return Finding(area="weights", name=name, status="ok", detail=f"cached at {file}")
    if not offline and (error := _unreachable(url)) is None:
        return Finding(area="weights", name=name, status="ok", detail=f"can be downloaded from {url}")
    why = "not looked for (--offline)" if offline else f"not reachable ({error})"
    detail = f"{why}; put the file at {file} or use {instead}"
    return Finding(area="weights", name=name, status="warn", detail=detail)


def _unreachable(url: str) -> str | None:
    """Return why a URL can not be reached, or None when it can."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_SECONDS):
            return None
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
        return str(getattr(error, "reason", error))


def _storage(settings: Settings, places: tuple[str, ...]) -> list[Finding]:
    named = [("home", str(settings.home_path)), ("runs", settings.runs_root), *(("given", uri) for uri in places)]
    if settings.artifact_root and settings.mlflow_artifacts_uri:
        named.append(("artifacts", settings.mlflow_artifacts_uri))
    found = [_place(name, uri) for name, uri in named]
    remote = [
        (finding, uri)
        for finding, (_, uri) in zip(found, named, strict=True)
        if finding.status == "ok" and finding.name != "artifacts" and not location(uri).is_local
    ]
    return [*found, *(_commits(finding.name, uri) for finding, uri in remote)]


def _place(name: str, uri: str) -> Finding:
    try:
        prove_writable(location(uri))
    except GwmError as error:
        return Finding(area="storage", name=name, status="fail", detail=str(error))
    return Finding(area="storage", name=name, status="ok", detail=f"{uri} is writable")


def _commits(name: str, uri: str) -> Finding:
    """Try what concurrent ingests rest on; a local disk needs no trying."""
    try:
        require_one_first_writer(location(uri))
    except GwmError as error:
        return Finding(area="storage", name=f"{name}, commits", status="fail", detail=str(error))
    return Finding(area="storage", name=f"{name}, commits", status="ok", detail="of writers at once one is first")


def _ports(settings: Settings) -> list[Finding]:
    return [_port(settings, "prefect", PREFECT_PORT), _port(settings, "mlflow", MLFLOW_PORT)]


def _port(settings: Settings, service: str, port: int) -> Finding:
    if url := services.running_url(service, settings):
        return Finding(area="ports", name=service, status="ok", detail=f"running at {url} (gwm up)")
    free = services.port_is_free(port)
    detail = f"{port} is free" if free else f"{port} is taken; start with gwm up --{service}-port N"
    return Finding(area="ports", name=service, status="ok" if free else "warn", detail=detail)
