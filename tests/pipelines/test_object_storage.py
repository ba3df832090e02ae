"""Everything on S3, from footage to masks and tables, with a training killed half way; and no secret key left behind.

Truth is the same work on a disk: an undisturbed training gives the same weights, a segmented file the same masks.
"""

from __future__ import annotations

import base64
import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import ray
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME

from pipelines.ablate import ablate_gwm
from pipelines.evaluate import evaluate_model
from pipelines.ingest import ingest_footage
from pipelines.runtime import load_settings
from pipelines.segment import segment_footage
from pipelines.train import train_gwm
from tasks.catalog import open_dataset
from tasks.model_package import WEIGHTS_FILE, read_description
from tasks.registry import find_version
from tasks.storage import Location, location
from tasks.trace_target import trace
from tasks.weights import fetch_weights
from tests.pipelines.killed import kill_at_a_checkpoint

pytestmark = pytest.mark.usefixtures("prefect_server", "ray_cluster")

GAPS = "data.gaps=[1,-1]"
NUM_STEPS = 80
TRAINING = [GAPS, f"optimisation.num_steps={NUM_STEPS}", "recording.checkpoint_every_steps=8"]
TRAINING += ["recording.pictures_every_steps=40"]


@pytest.fixture
def everything_remote(s3_root: str, rendered: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a folder with footage and truth, where all that has a setting goes."""
    for file in (path for path in rendered.rglob("*") if path.is_file()):
        (location(s3_root) / f"raw/{file.relative_to(rendered).as_posix()}").upload(file)
    monkeypatch.setenv("GWM_RUNS_URI", f"{s3_root}/runs")
    monkeypatch.setenv("GWM_MLFLOW_ARTIFACTS_URI", f"{s3_root}/mlflow")
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "0")
    monkeypatch.setenv("GWM_TRAIN_THREADS", "1")
    monkeypatch.setenv("GWM_INGEST_ACTORS", "1")
    monkeypatch.setenv("GWM_RAY_CPUS", "2")  # the two sequences are scored by two of Ray's processes
    return s3_root


def masks_below(folder: Location) -> list[np.ndarray]:
    return [cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED) for file in folder.list()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_path_lies_on_s3_and_leaves_no_secret(
    everything_remote: str,
    rendered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root, dataset, settings = everything_remote, f"{everything_remote}/dataset", load_settings()

    summary = ingest_footage([f"{root}/raw/footage"], dataset, gaps="1,-1")
    assert (summary["num_ingested"], open_dataset(dataset).num_frames) == (2, 12)

    training = ["train", "--experiment=debug", f"--dataset={dataset}"]
    training += [word for override in TRAINING for word in ("--set", override)]
    killed_at = kill_at_a_checkpoint(training, location(f"{root}/runs"), tmp_path / "killed.log")
    with monkeypatch.context() as by_ray_train:
        by_ray_train.setenv("GWM_TRAIN_WORKERS", "1")
        trained = train_gwm(dataset, "debug", overrides=TRAINING, register_as="remote")
    assert trained["resumed_from_step"] == killed_at < NUM_STEPS
    assert find_version("models:/remote/1", settings).artifact_uri.startswith(f"{root}/mlflow/")
    with monkeypatch.context() as on_disk:
        on_disk.setenv("GWM_RUNS_URI", str(tmp_path / "runs"))
        undisturbed = train_gwm(dataset, "debug", overrides=TRAINING, training_id="undisturbed")
    model, same = (location(result["model"]) for result in (trained, undisturbed))
    digest = read_description(model)["weights_sha256"]
    assert model.uri.startswith(f"{root}/runs/")
    assert digest == read_description(same)["weights_sha256"]
    assert fetch_weights((model / WEIGHTS_FILE).uri, digest).sha256 == digest

    report = f"{root}/report"
    scores = evaluate_model("models:/remote/1", "rendered", f"{root}/raw", None, f"{root}/scores.json", report)
    assert location(scores["page"]).read_bytes().startswith(b"<!")
    assert location(f"{root}/scores.json").exists()

    clip = sorted((rendered / "footage").glob("*.mp4"))[0]
    segment_footage([f"{root}/raw/footage/{clip.name}"], "models:/remote/1", f"{root}/masks")
    segment_footage([str(clip)], "models:/remote/1", str(tmp_path / "masks"))
    here, there = (masks_below(location(f"{place}/masks/{clip.stem}/masks")) for place in (tmp_path, root))
    assert len(there) == 6
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))
    links = trace(f"{root}/masks/{clip.stem}/masks/00000.png", settings).links
    assert {"mask", "model", "run", "dataset"} <= {link.kind for link in links}
    assert not [link for link in links if link.problem]

    table = ablate_gwm("segments", f"{root}/raw", dataset, "rendered", "debug", [GAPS], ["k2"], out=f"{root}/tables")
    assert location(table["page"]).exists()

    assert {place.name for place in location(root).list_folders()} == {
        *("raw", "dataset", "runs", "mlflow", "report", "masks", "tables")
    }
    assert not {"runs", "mlflow_artifacts", "ablations"} & {path.name for path in settings.home_path.iterdir()}
    assert_no_secret_left(tmp_path, location(root), capfd)


def assert_no_secret_left(folder: Path, bucket: Location, capfd: pytest.CaptureFixture[str]) -> None:
    """Look for the secret key in all that was left, after leaving it in four places that must be found."""
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    (folder / "canary.log").write_bytes(b"x" + secret)
    (folder / "canary.pkl").write_bytes(pickle.dumps({"key": secret.decode()}))
    (folder / "canary.json").write_bytes(base64.b64encode(b"xy" + secret + b"z"))
    (bucket / "canary").write_bytes(secret)
    output = folder / "output"
    output.write_text("".join(capfd.readouterr()))

    left = dict(left_behind(folder, bucket))
    kinds = {Path(name).suffix for name in left}
    assert {".db", ".log", ".png", ".parquet", ".safetensors", ".pt", ".json", ".html"} <= kinds
    found = {Path(name).name for name, content in left.items() if any(s in content for s in spellings(secret))}
    assert found == {"canary.log", "canary.pkl", "canary.json", "canary"}


def left_behind(folder: Path, bucket: Location) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of this test's files, of those of GWM, Prefect and Ray, and of all objects."""
    database = Path(urlsplit(str(PREFECT_API_DATABASE_CONNECTION_URL.value())).path.removeprefix("/"))
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert database.is_file()
    assert any((session / "logs").iterdir())
    places = (folder, load_settings().home_path, Path(str(PREFECT_HOME.value())), database.parent, session)
    for path in (Path(below) / name for place in places for below, _, names in os.walk(place) for name in names):
        with suppress(FileNotFoundError):  # a journal of a database at work: it was not left behind
            if path.is_file():
                yield str(path), path.read_bytes()
    for place in bucket.list(recursive=True):
        yield place.uri, place.read_bytes()


def spellings(secret: bytes) -> list[bytes]:
    """The secret as it is, and what base64 makes of its inner part at each of three offsets."""
    shifted = [base64.b64encode(b"\0" * shift + secret)[4:-4] for shift in range(3)]
    return [secret, *shifted]
