"""Checkpoints of others, and of ours from elsewhere, into what the project works with.

======================  ==========================================================================================
a file with             becomes
======================  ==========================================================================================
a released GWM head     a model in MLflow, together with the DINO weights that it was trained on
a backbone              weights under a name: DINO ViT, Swin (also from MoBY) or ResNet, in timm's names
a folder of our model   the same model in this MLflow
======================  ==========================================================================================

Kind and sizes are recognised from names and shapes; nothing in a file is executed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from model.pretrained import convert_backbone, recognise_backbone
from model.weights import load_state_dict, save_state_dict
from tasks.backbones import load_backbone
from tasks.checkpoint_report import CheckpointReport
from tasks.code_version import code_version
from tasks.config import ExperimentConfig
from tasks.downloads import partial_of
from tasks.errors import InputError, WeightsError
from tasks.model_package import Provenance, load_model, save_model
from tasks.named_weights import NAMED_WEIGHTS
from tasks.registry import CHAMPION, find_alias, log_model, register_model, resolve_model, set_alias
from tasks.released_checkpoint import build_released, is_released_checkpoint, released_experiment, report_released
from tasks.settings import Settings
from tasks.storage import Location, location
from tasks.tracking import find_or_create_run, flatten
from tasks.weights import IMPORTED_NAME, LocalWeights, fetch_weights, imported_path, read_lock, write_lock

OnReport = Callable[[CheckpointReport], None]


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import, and as what.

    source: a file, a folder with one of our models, or any reference of tasks/weights.py; sha256: of its bytes.
    register_as: name of the model in MLflow, or of the backbone among the weights. out: folder for the result beside
    MLflow, or in place of the weights' cache. backbone: reference of the weights that a GWM head was trained on.
    """

    source: str
    sha256: str | None = None
    register_as: str | None = None
    out: str | None = None
    backbone: str | None = None
    backbone_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedCheckpoint:
    """What came out: ``reference`` is what ``--model`` or ``backbone_weights`` takes, ``sha256`` of its weights."""

    kind: str
    reference: str
    sha256: str
    stored_at: str
    mlflow_run: str | None = None


def import_checkpoint(request: ImportRequest, settings: Settings, on_report: OnReport) -> ImportedCheckpoint:
    """Recognise a checkpoint, report what of it is used, and make it a model in MLflow or named weights.

    on_report: told what was found before anything is refused. Raises WeightsError for what can not be read, is of
    an unknown kind, or lacks something that is needed; ModelNotFoundError for a folder without a model.
    """
    if request.source.startswith(("models:/", "runs:/")) or location(request.source).is_folder():
        _without_backbone(request, "a model of ours")
        return _import_model(request, settings, on_report)
    file = fetch_weights(request.source, request.sha256, cache=settings.weights_path)
    state = load_state_dict(file.path)
    if is_released_checkpoint(state):
        return _import_released(request, file, state, settings, on_report)
    if recognise_backbone(state) is not None:
        _without_backbone(request, "a backbone")
        return _import_backbone(request, file, state, settings, on_report)
    hint = "; give the folder that holds it with model.json" if any(n.startswith("network.") for n in state) else ""
    raise WeightsError(
        f"{request.source} is of no kind that is known here, its names begin with {', '.join(list(state)[:3])}: "
        f"expected a released GWM checkpoint, a DINO ViT, Swin or ResNet-50, or a model folder of ours{hint}"
    )


def _import_released(
    request: ImportRequest, file: LocalWeights, state: Mapping[str, Tensor], settings: Settings, on_report: OnReport
) -> ImportedCheckpoint:
    experiment = released_experiment(state, request.source)
    report = report_released(state, experiment, source=request.source, sha256=file.sha256)
    on_report(report)
    report.require_usable()
    sizes = experiment.method.maskformer
    if request.backbone is None:
        raise WeightsError(
            f"{request.source} holds the head alone, the released code keeps {sizes.backbone} outside: give the "
            f"backbone that it was trained on with --backbone, such as {sizes.backbone}-timm or a file"
        )
    networks = (sizes.backbone,) if sizes.width_divisor == 1 else ()
    backbone = load_backbone(request.backbone, request.backbone_sha256, networks=networks, cache=settings.weights_path)
    method = build_released(state, experiment, backbone, request.source)
    origin = f"{request.source} (SHA-256 {file.sha256}) on {request.backbone} (SHA-256 {backbone.sha256})"
    return _log(method, experiment, report, origin, request, settings, f"{file.sha256[:12]}-{backbone.sha256[:12]}")


def _import_model(request: ImportRequest, settings: Settings, on_report: OnReport) -> ImportedCheckpoint:
    loaded = load_model(str(resolve_model(request.source, settings)))  # refuses what does not fit or was altered
    method = cast(nn.Module, loaded.method)
    if request.sha256 is not None and request.sha256.strip().lower() != loaded.weights_sha256:
        raise WeightsError(
            f"{request.source} has weights of SHA-256 {loaded.weights_sha256}, expected {request.sha256}"
        )
    report = CheckpointReport(
        source=request.source,
        kind=f"model of experiment {loaded.experiment.name}",
        sha256=loaded.weights_sha256,
        matched=tuple(method.state_dict()),
    )
    on_report(report)
    origin = f"{request.source} (SHA-256 {loaded.weights_sha256})"
    return _log(
        method,
        loaded.experiment,
        report,
        origin,
        request,
        settings,
        loaded.weights_sha256[:12],
        trained=loaded.provenance,
    )


def _log(
    method: nn.Module,
    experiment: ExperimentConfig,
    report: CheckpointReport,
    origin: str,
    request: ImportRequest,
    settings: Settings,
    digits: str,
    trained: Provenance | None = None,
) -> ImportedCheckpoint:
    """Store a model in MLflow under a run of its own, the same one when it is imported again; register it.

    trained: what it says of its training, where it is one of ours.
    """
    import_id = f"import-{digits}"
    tags = {"gwm.imported_from": origin, "gwm.experiment": experiment.name, "gwm.code_version": code_version()}
    run = find_or_create_run(settings, import_id, tags=tags, params=flatten(experiment.model_dump(mode="json")))
    here = {"training_id": import_id, "mlflow_run_id": run.run_id, "code_version": code_version()}
    provenance = (trained or Provenance()).model_copy(update={**here, "initial_model": origin})
    with (
        tempfile.TemporaryDirectory(prefix="gwm-import-") if request.out is None else nullcontext(request.out) as place
    ):
        package = _folder(place)
        digest = save_model(package, method, experiment=experiment, provenance=provenance)
        reference = log_model(run, package)
    run.log_json("import.json", report.to_json())
    run.set_status("FINISHED")
    if request.register_as is not None:
        model = register_model(settings, name=request.register_as, run_id=run.run_id)
        if find_alias(settings, name=model.name, alias=CHAMPION) is None:
            set_alias(settings, name=model.name, alias=CHAMPION, version=model.version)
        reference = model.reference
    stored_at = reference if request.out is None else package.uri
    return ImportedCheckpoint(
        kind=report.kind, reference=reference, sha256=digest, stored_at=stored_at, mlflow_run=run.run_id
    )


def _import_backbone(
    request: ImportRequest, file: LocalWeights, state: Mapping[str, Tensor], settings: Settings, on_report: OnReport
) -> ImportedCheckpoint:
    found = convert_backbone(state, request.source)
    report = CheckpointReport(
        source=request.source,
        kind=f"{found.network or found.kind} backbone",
        sha256=file.sha256,
        matched=tuple(found.state),
        unmatched=found.unused,
        unexpected=found.unexpected,
        missing=found.missing,
        misshapen=found.misshapen,
    )
    on_report(report)
    report.require_usable()
    name = request.register_as or re.sub(r"[^A-Za-z0-9._-]+", "-", file.path.name.partition(".")[0]).strip("-._")
    path = _place_of_backbone(name, request, settings)
    digest = _write_weights(found.state, path, name)
    content = {"name": name, "source": request.source, "source_sha256": file.sha256, "network": found.network}
    write_lock(path, {**content, "converter": found.kind, "sha256": digest})
    reference = name if request.out is None else str(path)
    load_backbone(reference, digest, cache=settings.weights_path)  # proves that it is found, whole and readable
    return ImportedCheckpoint(kind=report.kind, reference=reference, sha256=digest, stored_at=str(path))


def _place_of_backbone(name: str, request: ImportRequest, settings: Settings) -> Path:
    if not IMPORTED_NAME.fullmatch(name):
        raise InputError(f"name {name!r}: expected letters, digits, dots, dashes and underscores; give --register NAME")
    if request.out is not None:
        return _folder(request.out).local_path / f"{name}.safetensors"
    if name in NAMED_WEIGHTS:
        file = settings.weights_path / NAMED_WEIGHTS[name].file_name
        raise InputError(f"{name} is a registered name: give --register another one, or put its own file at {file}")
    return imported_path(name, settings.weights_path)


def _write_weights(state: Mapping[str, Tensor], path: Path, name: str) -> str:
    """Write weights in one step and return their SHA-256; never in place of others of the same name."""
    pinned = read_lock(path).get("sha256")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_of(path) as partial:
            digest = save_state_dict(state, partial)
            if pinned not in (None, digest):
                raise WeightsError(
                    f"{name} already names other weights ({path}, SHA-256 {pinned}): give --register another name, "
                    "or remove that file and its lock"
                )
            partial.replace(path)
    except OSError as error:
        raise WeightsError(f"can not write {path}: {error}; expected a folder that you may write to") from error
    return digest


def _folder(place: str | Path) -> Location:
    folder = location(place)
    folder.makedirs()
    return folder


def _without_backbone(request: ImportRequest, what: str) -> None:
    if request.backbone is not None or request.backbone_sha256 is not None:
        raise InputError(f"--backbone is for a GWM head, {request.source} is {what}: leave it out")
