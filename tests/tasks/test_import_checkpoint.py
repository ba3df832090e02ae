"""Checkpoints of others, in their layouts and names, become models and weights; what is wrong with one is told."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.resnet import Bottleneck, ResNet

from model.networks.maskformer import MaskFormerConfig
from model.networks.released import convert_released_head
from model.weights import sha256_of
from tasks.backbones import load_backbone
from tasks.checkpoint_report import CheckpointReport
from tasks.errors import GwmError, InputError, ModelNotFoundError, WeightsError
from tasks.features import MergingFeatures, build_features
from tasks.import_checkpoint import ImportedCheckpoint, ImportRequest, import_checkpoint
from tasks.model_package import load_model
from tasks.registry import list_models, resolve_model
from tasks.released_checkpoint import released_experiment, report_released
from tasks.settings import Settings
from tasks.tracking import mlflow_client
from tests.shared import GOLDEN, shared_or_skip
from tests.tasks.checkpoints import State, dino_full, dino_state, microsoft_swin, moby, released_head, small_swin
from tests.tasks.tiny_models import saved_model
from tests.tasks.training_data import local_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local_settings(tmp_path_factory.mktemp("home"))


@pytest.fixture
def head() -> State:
    return released_head(shared_or_skip(GOLDEN / "maskformer_head.npz"))


def detectron2(head: State, path: Path) -> Path:
    """Write a checkpoint as GWM's training leaves it: the model, the optimiser, and the state of random generators."""
    model = head | {"criterion.empty_weight": torch.ones(2)}
    beside = {
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "random_state": {"__numpy_prng_state__": np.random.get_state(), "__random_prng_state__": random.getstate()},
        "iteration": 15_000,
        "loss": torch.tensor(0.2),
        "iou": np.float64(79.56),
    }
    torch.save({"model": model, **beside}, path)
    return path


def do(settings: Settings, source: Path | str, **options: str | None) -> tuple[ImportedCheckpoint, CheckpointReport]:
    reports: list[CheckpointReport] = []
    imported = import_checkpoint(ImportRequest(source=str(source), **options), settings, reports.append)
    (report,) = reports
    return imported, report


def refused(settings: Settings, source: Path | str, message: str, **options: str | None) -> list[CheckpointReport]:
    """Import, expect an error, and return what was reported before it."""
    reports: list[CheckpointReport] = []
    with pytest.raises(GwmError, match=message):
        import_checkpoint(ImportRequest(source=str(source), **options), settings, reports.append)
    return reports


# A released GWM head.


def test_a_released_head_on_its_backbone_is_a_registered_model(settings: Settings, head: State, tmp_path: Path) -> None:
    torch.save(dino_state(12), tmp_path / "dino.pth")
    checkpoint = detectron2(head, tmp_path / "checkpoint_best.pth")
    options = {"backbone": str(tmp_path / "dino.pth"), "register_as": "released", "out": str(tmp_path / "out")}
    imported, report = do(settings, checkpoint, **options)

    assert imported.reference == "models:/released/1"
    counts = {row["names"]: row["count"] for row in report.rows()}
    assert counts == {"matched": len(head) - 4, "unmatched": 5, "unexpected": 0, "missing": 0, "misshapen": 0}
    assert report.kind == "released GWM head for dino-vit-s8, K=4"
    loaded = load_model(str(resolve_model("models:/released@champion", settings)))
    assert loaded.weights_sha256 == imported.sha256 == load_model(str(tmp_path / "out")).weights_sha256
    assert sha256_of(checkpoint) in loaded.provenance.initial_model
    assert sha256_of(tmp_path / "dino.pth") in loaded.provenance.initial_model
    assert loaded.method.segment(torch.rand(1, 3, 60, 90) * 255).probabilities.shape == (1, 4, 128, 224)
    assert do(settings, checkpoint, **options)[0] == imported  # the same run and version
    tags = mlflow_client(settings).get_run(imported.mlflow_run).data.tags
    assert "checkpoint_best.pth" in tags["gwm.imported_from"]


def test_the_imported_network_computes_what_the_released_code_did(
    settings: Settings, head: State, tmp_path: Path
) -> None:
    dino = dino_state(12)
    torch.save(dino, tmp_path / "dino.pth")
    torch.save({f"module.{name}": tensor for name, tensor in head.items()}, tmp_path / "head.pth")
    do(settings, tmp_path / "head.pth", backbone=str(tmp_path / "dino.pth"), out=str(tmp_path / "out"))
    network = load_model(str(tmp_path / "out")).method.network
    with np.load(GOLDEN / "maskformer_head.npz") as recorded, torch.no_grad():
        maps = [torch.from_numpy(recorded[f"in.block{block}"]) for block in (6, 8, 10, 12)]
        levels = [torch.cat([level, torch.zeros(2, 16, 7, 13)], dim=1) for level in maps]
        logits = network.query_decoder(levels[-1], network.pixel_decoder(levels))
        np.testing.assert_allclose(logits, recorded["logits"], atol=1e-4)
    vit = network.backbone.extractor.vit.state_dict()
    assert all(torch.equal(vit[name], tensor) for name, tensor in dino.items())


def test_published_widths_give_the_released_configuration(head: State) -> None:
    published = {48: 768, 64: 256, 128: 2048, 192: 768}  # recorded narrow: map, conv, feed-forward, three projections
    state = {
        name: torch.zeros(()).expand([published.get(size, size) for size in recorded_shape(name, tensor)])
        for name, tensor in head.items()
    }
    experiment = released_experiment(state, "best.pth")
    assert experiment.method.maskformer == MaskFormerConfig()
    assert experiment.method.num_segments == 4
    report = report_released(state, experiment, source="best.pth", sha256="0" * 64)
    report.require_usable()
    parameters = sum(tensor.numel() for tensor in convert_released_head(state).values())
    assert parameters == 15_901_440  # as counted in the released code


def recorded_shape(name: str, tensor: torch.Tensor) -> list[int]:
    """Undo the widening of ``released_head``."""
    widened = "adapter" in name or "layer_4.weight" in name or "input_proj.weight" in name
    return [48 if widened and axis == 1 else size for axis, size in enumerate(tensor.shape)]


def test_a_head_needs_its_backbone(settings: Settings, head: State, tmp_path: Path) -> None:
    checkpoint = detectron2(head, tmp_path / "best.pth")
    (report,) = refused(settings, checkpoint, r"holds the head alone.*--backbone, such as dino-vit-s8-timm or a file")
    assert report.missing == ()
    torch.save(dino_state(11), tmp_path / "short.pth")
    refused(settings, checkpoint, r"short\.pth does not fit .*blocks\.11", backbone=str(tmp_path / "short.pth"))


def test_a_head_that_is_not_whole_is_reported_and_refused(settings: Settings, head: State, tmp_path: Path) -> None:
    name = "sem_seg_head.predictor.mask_embed.layers.1.weight"
    without = {key: tensor for key, tensor in head.items() if key != name}
    (report,) = refused(
        settings, detectron2(without, tmp_path / "a.pth"), "missing: query_decoder.mask_embedding.2.weight"
    )
    assert report.missing == ("query_decoder.mask_embedding.2.weight",)
    other = head | {name: torch.zeros(64, 65)}
    (report,) = refused(
        settings, detectron2(other, tmp_path / "b.pth"), r"misshapen: .* is \(64, 65\), expected \(64, 64\)"
    )
    assert len(report.misshapen) == 1
    (report,) = refused(
        settings,
        detectron2(head | {"backbone.conv1.weight": torch.ones(1)}, tmp_path / "c.pth"),
        "unexpected: backbone",
    )
    refused(
        settings,
        detectron2(head | {"sem_seg_head.predictor.class_embed.weight": torch.ones(1)}, tmp_path / "d.pth"),
        "is no part of the released head",
    )
    nothing_to_size_it = {key: tensor for key, tensor in head.items() if "query_embed" not in key}
    refused(
        settings, detectron2(nothing_to_size_it, tmp_path / "e.pth"), "query_embed.weight is missing; the head's sizes"
    )


def test_a_head_for_another_backbone_is_refused(settings: Settings, head: State, tmp_path: Path) -> None:
    narrow = {k: t[:, :48] if t.ndim == 4 and t.shape[1] == 64 and "adapter" in k else t for k, t in head.items()}
    refused(
        settings,
        detectron2(narrow, tmp_path / "n.pth"),
        r"maps of 48 channels: expected a DINO ViT's, 768 \(dino-vit-b8",
    )
    odd = {k: t[:1] if k.endswith("query_embed.weight") else t for k, t in head.items()}
    refused(settings, detectron2(odd, tmp_path / "k.pth"), "sizes that no MaskFormer here has: .*num_segments=1")


# Backbones.


def backbones() -> dict[str, State]:
    with torch.device("meta"):
        shapes = ResNet(Bottleneck, (1, 1, 1, 1), num_classes=2).state_dict()
    return {
        "dino": dino_full(dino_state()),
        "swin": moby(microsoft_swin(small_swin())),
        "resnet": {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in shapes.items()},
    }


@pytest.mark.parametrize("kind", ["dino", "swin", "resnet"])
def test_a_backbone_becomes_weights_under_a_name(settings: Settings, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"their {kind}.v2.pth"
    torch.save({"teacher" if kind == "dino" else "model": backbones()[kind], "epoch": 3}, file)
    imported, report = do(settings, file, register_as=f"my-{kind}")
    assert (imported.reference, imported.mlflow_run) == (f"my-{kind}", None)
    assert report.kind == f"{kind} backbone"
    assert report.unmatched != ()
    found = load_backbone(f"my-{kind}", cache=settings.weights_path)
    assert found.sha256 == imported.sha256
    assert found.state.keys() == set(report.matched)
    assert do(settings, file)[0].reference == f"their-{kind}"
    out, _ = do(settings, file, out=str(tmp_path / "out"))
    assert out.reference == out.stored_at == str(tmp_path / "out" / f"their-{kind}.safetensors")


def test_imported_dino_merges_segments(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(dino_state(), tmp_path / "dino.pth")
    do(settings, tmp_path / "dino.pth", register_as="for-merging")
    monkeypatch.setenv("GWM_WEIGHTS_DIR", str(settings.weights_path))
    source = build_features(MergingFeatures(name="dino", weights="for-merging"))
    assert source.keys.vit.embed_dim == 64


def test_a_name_stays_what_it_was(settings: Settings, tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save(dino_state(), tmp_path / f"{name}.pth")
    first, _ = do(settings, tmp_path / "a.pth", register_as="taken")
    refused(settings, tmp_path / "b.pth", "taken already names other weights", register_as="taken")
    assert do(settings, tmp_path / "a.pth", register_as="taken")[0] == first
    refused(settings, tmp_path / "a.pth", "dino-vit-s8 is a registered name", register_as="dino-vit-s8")
    refused(settings, tmp_path / "a.pth", "name 'a/b': expected letters", register_as="a/b")


def test_a_backbone_that_is_not_whole_is_reported_and_refused(settings: Settings, tmp_path: Path) -> None:
    state = dino_state()
    del state["norm.bias"]
    state |= {"blocks.0.ls1.gamma": torch.ones(64), "blocks.1.mlp.fc2.bias": torch.ones(3)}  # DINOv2 scales its layers
    torch.save(state, tmp_path / "dinov2.pth")
    (report,) = refused(settings, tmp_path / "dinov2.pth", "can not be imported as dino backbone: missing: norm.bias")
    assert report.unexpected == ("blocks.0.ls1.gamma",)
    assert report.misshapen == ("blocks.1.mlp.fc2.bias is (3,), expected (64,)",)
    with pytest.raises(WeightsError, match=r"ls1\.gamma is not part of the network"):
        load_backbone(str(tmp_path / "dinov2.pth"))


# Models of ours, and what is none of all these.


def test_a_model_of_ours_is_registered_here(settings: Settings, tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "model")
    imported, report = do(settings, folder, register_as="elsewhere")
    assert imported.reference == "models:/elsewhere/1"
    assert imported.sha256 == report.sha256 == load_model(folder).weights_sha256
    assert [model.aliases for model in list_models(settings, name="elsewhere")] == [("champion",)]
    refused(settings, folder, "has weights of SHA-256", sha256="0" * 64)
    refused(settings, tmp_path / "model" / "model.safetensors", "give the folder that holds it with model.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="no model at"):
        do(settings, tmp_path / "empty")
    with pytest.raises(InputError, match="--backbone is for a GWM head"):
        do(settings, folder, backbone="dino-vit-s8")


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["model", "random_state"])
def test_code_in_a_checkpoint_is_not_run(settings: Settings, tmp_path: Path, where: str) -> None:
    content = {"model": dino_state(), where: _Trap(tmp_path / "run")}
    torch.save(content, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(content, 2))
    for name in ("a.pth", "b.pth"):
        assert refused(settings, tmp_path / name, "can not be read as weights") == []
    assert not (tmp_path / "run").exists()


def test_unreadable_and_unknown_files_are_refused(settings: Settings, tmp_path: Path) -> None:
    torch.save(dino_state(), tmp_path / "dino.pth")
    refused(settings, tmp_path / "dino.pth", "the file was altered or is another one", sha256="0" * 64)
    whole = (tmp_path / "dino.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    refused(settings, tmp_path / "cut.pth", "can not be read as weights")
    (tmp_path / "page.pth").write_text("<html>")
    refused(settings, tmp_path / "page.pth", "can not be read as weights")
    torch.save({"encoder.conv.weight": torch.ones(1)}, tmp_path / "other.pth")
    refused(
        settings, tmp_path / "other.pth", r"of no kind that is known here.*encoder\.conv\.weight: expected a released"
    )
    refused(settings, tmp_path / "absent.pth", "no weights")


def test_the_head_that_is_tested_with_is_the_recorded_one(head: State) -> None:
    assert len(convert_released_head(head)) == len(head) - 4 - 8  # without what is never run, and one norm for five
