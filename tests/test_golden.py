"""The golden runner: it passes on the recorded numbers, and fails on altered, broken and unknown files."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.__main__ import main
from tests.golden.checks import CHECKS
from tests.golden.comparison import absolute, relative
from tests.golden.runner import run_checks
from tests.shared import DAVIS, GOLDEN, shared_or_skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small arrays gain nothing from a second thread, and lose much to waiting for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def copy_archive(name: str, folder: Path) -> Path:
    """Copy one archive and its companions from the recorded ones."""
    source = next(path for path in shared_or_skip(GOLDEN).iterdir() if name in (path.stem, path.name))
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    for companion in CHECKS[name].companions:
        shutil.copyfile(GOLDEN / companion, folder / companion)
    return target


def change_array(archive: Path, name: str, change: float) -> None:
    """Move the largest value of an array by ``change``, relative to it."""
    with np.load(archive) as arrays:
        content = dict(arrays)
    values = content[name].copy()
    values.flat[np.abs(values).argmax()] *= 1 + change
    np.savez(archive, **(content | {name: values}))


@pytest.mark.parametrize("name", list(CHECKS))
def test_recorded_numbers_are_met(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shared_or_skip(GOLDEN)
    assert main([str(GOLDEN), "--only", name]) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith("ok")
    assert name in line
    assert "largest relative error" in line


@pytest.mark.parametrize(
    ("name", "array", "change"),
    [
        ("gwm_blended_loss", "small.loss", 2e-9),
        ("gwm_blended_loss", "peaky.grad", 2e-7),
        ("gwm_blended_loss", "k2.reconstruction", 2e-7),
        ("maskformer_head", "logits", 1e-4),  # of logits that reach 2.7
        ("raft_small", "flow", 1e-4),  # of a flow that reaches 7 px
        ("raft_large", "flow", 1e-4),  # of a flow that reaches 3.7 px
        ("amd_segment_flow", "flow_backward0", 2e-5),  # of a flow that reaches 12 px
        ("amd_warp", "warped", 2e-6),
    ],
)
def test_an_altered_array_is_a_miss(
    name: str, array: str, change: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_array(copy_archive(name, tmp_path), array, change)
    assert main([str(tmp_path)]) == 1
    assert f"MISS  {name}.npz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("quantity", "share", "missed"),
    [("foreground", 8e-4, False), ("foreground", 2e-3, True), ("probability", 1e-5, True)],
)
def test_altered_labels_of_the_crf_are_a_miss(quantity: str, share: float, missed: bool, tmp_path: Path) -> None:
    archive = copy_archive("dense_crf", tmp_path)
    with np.load(archive) as arrays:
        content = {name: arrays[name] for name in arrays if name.startswith("blackswan") and ".rcf." not in name}
    altered = content[f"blackswan_00010.gwm.{quantity}"]
    pixels = altered.reshape(-1)[:: round(1 / share)]
    pixels[:] = ~pixels if quantity == "foreground" else pixels ^ 256  # bit 8 is 1/256
    np.savez(archive, **content)
    assert main([str(tmp_path), "--davis", str(shared_or_skip(DAVIS))]) == int(missed)


def keep_one_sequence(folder: Path, kept: str) -> None:
    """Leave the other sequences out of a copy of davis_metrics, to be quick."""
    rows = (folder / "per_frame.csv").read_text().splitlines()
    (folder / "per_frame.csv").write_text("\n".join(row for row in rows if row.startswith(("sequence", kept))))
    summary = json.loads((folder / "per_sequence.json").read_text())
    (folder / "per_sequence.json").write_text(json.dumps({kept: summary[kept]}))
    for path in folder.iterdir():
        if path.is_dir() and path.name != kept:
            shutil.rmtree(path)


def change_frame(folder: Path, column: str, change: float) -> None:
    with (folder / "per_frame.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[3][column] = repr(float(rows[3][column]) + change)
    with (folder / "per_frame.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def change_summary(folder: Path, key: str, statistic: str, change: float) -> None:
    summary = json.loads((folder / "per_sequence.json").read_text())
    summary["libby"][key][statistic] += change
    (folder / "per_sequence.json").write_text(json.dumps(summary))


def drop_masks(folder: Path) -> None:
    shutil.rmtree(folder / "libby")


def drop_last_mask(folder: Path) -> None:
    max((folder / "libby").iterdir()).unlink()


@pytest.mark.parametrize(
    "alter",
    [
        lambda folder: change_frame(folder, "J", 2e-9),
        lambda folder: change_frame(folder, "F", 2e-6),
        lambda folder: change_summary(folder, "J", "decay", 2e-9),
        lambda folder: change_summary(folder, "F_without_first_and_last", "recall", 2e-6),
        drop_masks,
        drop_last_mask,
    ],
)
def test_altered_davis_scores_are_a_miss(alter: Callable[[Path], None], tmp_path: Path) -> None:
    davis = str(shared_or_skip(DAVIS))
    folder = copy_archive("davis_metrics", tmp_path)
    keep_one_sequence(folder, "libby")
    alter(folder)
    assert main([str(tmp_path), "--davis", davis]) == 1


def test_the_davis_root_is_given_or_found_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    davis = shared_or_skip(DAVIS)
    (tmp_path / "golden").mkdir()
    keep_one_sequence(copy_archive("davis_metrics", tmp_path / "golden"), "libby")
    assert main([str(tmp_path / "golden")]) == 1  # no DIR/../data/davis16
    assert "FileNotFoundError" in capsys.readouterr().out
    assert main([str(tmp_path / "golden"), "--davis", str(davis)]) == 0
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "davis16").symlink_to(davis)
    assert main([str(tmp_path / "golden")]) == 0


def test_files_without_a_check_are_a_miss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_archive("gwm_blended_loss", tmp_path)
    np.savez(tmp_path / "someday.npz", value=np.ones(1))
    (tmp_path / "notes.txt").write_text("what is this?")
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "gwm_blended_loss.npz"],
        ["MISS", "notes.txt"],
        ["MISS", "someday.npz"],
    ]
    assert all("no check is known for this file" in line for line in lines[1:])
    assert main([str(tmp_path), "--only", "gwm_blended_loss"]) == 0


def test_a_broken_archive_is_a_miss_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = copy_archive("raft_small", tmp_path)
    shutil.copyfile(archive, tmp_path / "raft_large.npz")  # its checkpoint is not there
    (tmp_path / "gwm_blended_loss.npz").write_bytes(b"PK")
    assert main([str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "MISS  gwm_blended_loss.npz" in output
    assert "MISS  raft_large.npz" in output
    assert "no weights file at" in output
    assert "ok    raft_small.npz" in output


def test_companions_belong_to_their_archive_only_when_it_is_there(tmp_path: Path) -> None:
    archive = copy_archive("raft_small", tmp_path)
    assert [outcome.file for outcome in run_checks(tmp_path, DAVIS)] == ["raft_small.npz"]
    archive.unlink()
    (left,) = run_checks(tmp_path, DAVIS)
    assert (left.file, left.passed) == ("raft_small_princeton_random.pth", False)


@pytest.mark.parametrize("only", ["raft_tiny", "gwm_blended_loss", "", "raft_small,raft_tiny"])
def test_only_refuses_names_it_does_not_know_or_have(
    only: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_archive("raft_small", tmp_path)
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path), "--only", only])
    assert raised.value.code == 2
    assert "can not be checked" in capsys.readouterr().err


def test_nothing_to_check_is_a_failure(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1
    with pytest.raises(SystemExit):
        main([str(tmp_path / "missing")])


def test_comparisons_miss_on_nan_and_refuse_other_shapes() -> None:
    recorded = np.array([1.0, -4.0])
    assert relative("x", recorded * (1 + 1e-10), recorded, 1e-9).passed
    assert relative("x", torch.tensor([1.0, -4.0]), recorded, 1e-9).relative_error == 0
    assert absolute("x", recorded + 0.5, recorded, 1.0).relative_error == pytest.approx(0.125)
    assert not absolute("x", [1.0, float("nan")], recorded, 1e9).passed
    with pytest.raises(ValueError, match=r"shape \(1,\), recorded \(2,\)"):
        relative("x", [1.0], recorded, 1e-9)
    with pytest.raises(ValueError, match="not finite"):
        relative("x", recorded, [1.0, float("inf")], 1e-9)
