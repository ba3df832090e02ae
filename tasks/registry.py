"""MLflow's model registry: put models in, give them aliases, and find a model by whatever a user names it.

A reference to a model is one of::

    models:/gwm@champion     the version that bears an alias
    models:/gwm/3            a version
    runs:/0123abcd           the model of an MLflow run
    a path or URI            a folder with model.json, or the folder of a training run

In MLflow a model is a pyfunc folder that holds our two files and names ``tasks.served_model`` as its loader.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.code_version import DISTRIBUTION, installed_version
from tasks.errors import ModelNotFoundError, StorageError
from tasks.model_package import DESCRIPTION_FILE, WEIGHTS_FILE, is_model
from tasks.settings import Settings
from tasks.storage import Location, location
from tasks.tracking import TrackedRun, mlflow_client, mlflow_errors

CHAMPION = "champion"
"""Alias of the version in use: what retraining starts from and has to beat."""

ARTIFACT_NAME = "model"
"""Artifact path of the pyfunc folder in a run: ``runs:/<id>/model``."""

_ALIAS_REFERENCE = re.compile(r"^models:/(?P<name>[^/@'\"]+)@(?P<alias>[^/@]+)$")
_VERSION_REFERENCE = re.compile(r"^models:/(?P<name>[^/@'\"]+)/(?P<version>\d+)$")
_RUN_REFERENCE = re.compile(r"^runs:/(?P<run>[0-9a-zA-Z]+)(/.*)?$")


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """One version of a model in the registry."""

    name: str
    version: int
    run_id: str | None
    artifact_uri: str
    aliases: tuple[str, ...]

    @property
    def reference(self) -> str:
        """How a user names this version."""
        return f"models:/{self.name}/{self.version}"


def log_model(run: TrackedRun, package: Location) -> str:
    """Store the model of folder ``package`` with its run, without pickle; return ``runs:/<id>/model``.

    Doing it again replaces the files by the same ones.
    """
    pyfunc_flavour = _pyfunc_flavour()
    with tempfile.TemporaryDirectory(prefix="gwm-model-") as folder:
        files, pyfunc = Path(folder) / "package", Path(folder) / "pyfunc"
        files.mkdir()
        _copy(package, files)
        with mlflow_errors("package the model"):
            pyfunc_flavour.save_model(
                str(pyfunc),
                loader_module="tasks.served_model",
                data_path=str(files),
                pip_requirements=[_requirement()],
            )
        run.log_folder(pyfunc, ARTIFACT_NAME)
    return f"runs:/{run.run_id}/{ARTIFACT_NAME}"


def register_model(settings: Settings, *, name: str, run_id: str) -> RegisteredModel:
    """Make the model that ``log_model`` stored a version of ``name``; a run's model becomes one version only."""
    client = mlflow_client(settings)
    with mlflow_errors(f"register {name}"):
        for version in client.search_model_versions(f"name='{name}' and run_id='{run_id}'"):
            return _registered(version)
        if not any(model.name == name for model in client.search_registered_models(f"name='{name}'")):
            client.create_registered_model(name)
        root = client.get_run(run_id).info.artifact_uri
        return _registered(client.create_model_version(name, f"{root}/{ARTIFACT_NAME}", run_id))


def set_alias(settings: Settings, *, name: str, alias: str, version: int) -> None:
    """Move ``alias`` to a version; whoever loads ``models:/name@alias`` gets it from now on."""
    with mlflow_errors(f"set alias {alias} of {name}"):
        mlflow_client(settings).set_registered_model_alias(name, alias, str(version))


def find_alias(settings: Settings, *, name: str, alias: str) -> RegisteredModel | None:
    """Return the version that bears ``alias``; None when there is no such model or alias."""
    return next((model for model in list_models(settings, name=name) if alias in model.aliases), None)


def list_models(settings: Settings, *, name: str | None = None) -> tuple[RegisteredModel, ...]:
    """Return all registered versions, of one model or of all, by name and version."""
    client = mlflow_client(settings)
    found = []
    with mlflow_errors("list models"):
        for model in _every(client.search_registered_models, f"name='{name}'" if name else None):
            aliases: dict[str, list[str]] = {}
            for alias, version in dict(client.get_registered_model(model.name).aliases).items():
                aliases.setdefault(str(version), []).append(alias)
            for version in _every(client.search_model_versions, f"name='{model.name}'"):
                found.append(_registered(version, aliases.get(str(version.version), ())))
    return tuple(sorted(found, key=lambda model: (model.name, model.version)))


def resolve_model(reference: str, settings: Settings) -> Path:
    """Return a local folder with the model's two files; remote ones are fetched into the home folder once.

    Raises ModelNotFoundError that lists what exists.
    """
    if reference.startswith("models:/"):
        return _fetch_from_mlflow(find_version(reference, settings).artifact_uri, reference, settings)
    run = _RUN_REFERENCE.match(reference)
    if run:
        return _fetch_from_mlflow(_artifact_of_run(run["run"], settings), reference, settings)
    place = location(reference)
    for folder in (place, place / ARTIFACT_NAME):
        if is_model(folder):
            return folder.local_path if folder.is_local else _fetch(folder, settings)
    raise ModelNotFoundError(
        f"no model at {place.uri}: expected a folder with {DESCRIPTION_FILE}, the folder of a finished training run, "
        f"or one of {_existing(settings)}"
    )


def find_version(reference: str, settings: Settings) -> RegisteredModel:
    """Return the version that ``models:/name@alias`` or ``models:/name/3`` names.

    Raises ModelNotFoundError that lists what exists.
    """
    by_alias, by_version = _ALIAS_REFERENCE.match(reference), _VERSION_REFERENCE.match(reference)
    named = by_alias or by_version
    for model in list_models(settings, name=named["name"]) if named else ():
        if by_version and (model.name, str(model.version)) == (by_version["name"], by_version["version"]):
            return model
        if by_alias and model.name == by_alias["name"] and by_alias["alias"] in model.aliases:
            return model
    raise ModelNotFoundError(f"no model {reference!r} in {settings.tracking_uri}: expected {_existing(settings)}")


def versions_of_run(settings: Settings, run_id: str) -> tuple[RegisteredModel, ...]:
    """Return the registered versions of the model that a run trained; none where it was not registered."""
    client = mlflow_client(settings)
    with mlflow_errors(f"look for the model of run {run_id}"):
        found = [_registered(version) for version in _every(client.search_model_versions, f"run_id='{run_id}'")]
    return tuple(sorted(found, key=lambda model: (model.name, model.version)))


def _every(search: Callable[..., Any], condition: str | None) -> Iterator[Any]:
    """Yield what a search of MLflow finds, page after page."""
    page = search(condition)
    yield from page
    while page.token:
        page = search(condition, page_token=page.token)
        yield from page


def _artifact_of_run(run_id: str, settings: Settings) -> str:
    try:
        with mlflow_errors(f"find run {run_id}"):
            return f"{mlflow_client(settings).get_run(run_id).info.artifact_uri}/{ARTIFACT_NAME}"
    except StorageError as error:
        raise ModelNotFoundError(f"no model at runs:/{run_id}: {error}") from error


def _existing(settings: Settings) -> str:
    names = [f"models:/{model.name}@{alias}" for model in list_models(settings) for alias in model.aliases] + [
        model.reference for model in list_models(settings)
    ]
    return (
        ", ".join(names) if names else "a registered model, of which there is none yet: train one with --register NAME"
    )


def _fetch_from_mlflow(uri: str, reference: str, settings: Settings) -> Path:
    import mlflow.artifacts  # local: see mlflow_client in tasks/tracking.py

    digest = hashlib.sha256(f"{settings.tracking_uri} {uri}".encode()).hexdigest()[:16]
    target = settings.home_path / "models" / digest
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder:
            whole = Path(folder) / "whole"
            whole.mkdir()
            try:
                with mlflow_errors(f"fetch {uri}"):
                    mlflow.artifacts.download_artifacts(
                        artifact_uri=uri, dst_path=str(whole), tracking_uri=settings.tracking_uri
                    )
            except StorageError as error:
                raise ModelNotFoundError(
                    f"no model at {reference!r}: {error}; expected a run that trained to its end, or "
                    f"{_existing(settings)}"
                ) from error
            _publish_folder(whole, target)
    found = _package_below(target)
    if found is None:
        raise ModelNotFoundError(f"{reference!r} holds no {DESCRIPTION_FILE}: it was not logged by this project")
    return found


def _publish_folder(fetched: Path, target: Path) -> None:
    """Give a folder its lasting name in one step; whoever comes second finds it done."""
    try:
        fetched.rename(target)
    except OSError:
        if not target.exists():
            raise


def _package_below(folder: Path) -> Path | None:
    return next((path.parent for path in sorted(folder.rglob(DESCRIPTION_FILE))), None)


def _fetch(package: Location, settings: Settings) -> Path:
    """Copy a remote model into the home folder, under the hash of its description."""
    digest = hashlib.sha256((package / DESCRIPTION_FILE).read_bytes()).hexdigest()[:16]
    target = settings.home_path / "models" / digest
    if not (target / DESCRIPTION_FILE).exists():
        _copy(package, target)
    return target


def _copy(package: Location, target: Path) -> None:
    for name in (WEIGHTS_FILE, DESCRIPTION_FILE):  # the description last, as it publishes the model
        (location(target) / name).write_bytes((package / name).read_bytes())


def _pyfunc_flavour() -> Any:
    """Import MLflow's pyfunc; local, as it takes a second, and without the warning that it raises about itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
        import mlflow.pyfunc
    return mlflow.pyfunc


def _requirement() -> str:
    installed = installed_version()
    return DISTRIBUTION if installed == "unknown" else f"{DISTRIBUTION}=={installed}"


def _registered(version: Any, aliases: Any = ()) -> RegisteredModel:
    return RegisteredModel(
        name=version.name,
        version=int(version.version),
        run_id=version.run_id or None,
        artifact_uri=version.source,
        aliases=tuple(sorted(aliases or version.aliases or ())),
    )
