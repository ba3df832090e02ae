"""The shape of the project: layers, cycles, sizes, and a ``model/`` that needs nothing but torch.

Every rule is applied to the project and then, in the second half, to a snippet that breaks it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture import (
    LAYERS,
    ROOT,
    find_cycle,
    import_graph,
    imports_of,
    layer_complaints,
    machine_complaints,
    project_modules,
    python_files,
    size_complaints,
    tracked_files,
)

MODULES = project_modules()

WITHOUT_THE_PLATFORM = """
import importlib, importlib.abc, pkgutil, sys

class Blocker(importlib.abc.MetaPathFinder):
    blocked = {"ray", "prefect", "mlflow", "pyarrow", "pydantic"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"{name} is blocked in this test", name=name)

sys.meta_path.insert(0, Blocker())
import model
names = [module.name for module in pkgutil.walk_packages(model.__path__, "model.")]
for name in names:
    importlib.import_module(name)

import torch
from model.methods import build_method
from model.methods.gwm import GwmConfig
torch.set_num_threads(1)
method = build_method(GwmConfig(base_channels=4, image_size=(32, 56), flow_size=(32, 56)))
segmentation = method.eval().segment(torch.zeros(1, 3, 32, 56))
assert torch.allclose(segmentation.probabilities.sum(1), torch.ones(1, 32, 56), atol=1e-5)
assert not Blocker.blocked & {name.split(".")[0] for name in sys.modules}
print(len(names))
"""


def test_there_is_something_to_check() -> None:
    assert {module.split(".")[0] for module in MODULES} == set(LAYERS)


def test_imports_point_one_way() -> None:
    assert layer_complaints(MODULES) == []


@pytest.mark.parametrize("module_level_only", [True, False], ids=["on import", "hidden in functions"])
def test_no_import_cycles(module_level_only: bool) -> None:
    assert find_cycle(import_graph(MODULES, module_level_only=module_level_only)) is None


def test_files_and_functions_are_short() -> None:
    complaints = [
        complaint
        for path in python_files()
        for complaint in size_complaints(str(path.relative_to(ROOT)), path.read_text())
    ]
    assert complaints == []


def test_no_machine_paths_and_no_registry_hosts() -> None:
    complaints = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:  # a picture
            continue
        complaints += machine_complaints(str(path.relative_to(ROOT)), text)
    assert complaints == []


def test_lock_names_no_place() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert lines
    assert [line for line in lines if "://" in line or line.startswith("-") or "+cpu" in line or "+cu" in line] == []


def test_model_needs_nothing_of_the_platform() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PLATFORM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) >= 8


# The checkers themselves.


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("model.networks.unet", "import pyarrow", "model/ may import"),
        ("model.networks.unet", "from tasks.errors import StorageError", "model/ may import"),
        ("model.networks.unet", "def f():\n    import cv2", "belongs in model.dis only"),
        ("model.raft", "from . import types", "relative imports"),
        ("tasks.train", "import prefect.artifacts", "knows neither Prefect"),
        ("tasks.train", "from pipelines import cli", "knows neither Prefect"),
        ("pipelines.train", "def f():\n    import ray.train", "reaches Ray through tasks/"),
        ("pipelines.train", "from model.methods import gwm", "go through tasks/"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, reason: str) -> None:
    (complaint,) = layer_complaints({module: source})
    assert reason in complaint


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model.dis", "import cv2, math"),
        ("tasks.train", "import ray\nfrom model.types import FramePair"),
        (
            "pipelines.train",
            "from prefect import flow\nfrom model.errors import GwmError\nfrom tasks import train",
        ),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert layer_complaints({module: source}) == []


def test_cycles_are_found_also_when_hidden() -> None:
    modules = {
        "tasks.a": "from tasks import b",
        "tasks.b": "import tasks.c",
        "tasks.c": "def late():\n    from tasks.a import something",
    }
    assert find_cycle(import_graph(modules, module_level_only=True)) is None
    assert find_cycle(import_graph(modules, module_level_only=False)) == [
        "tasks.a",
        "tasks.b",
        "tasks.c",
        "tasks.a",
    ]


def test_imports_for_type_checking_run_for_nobody() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tasks.a\nimport tasks.b"
    levels = {item.name: item.module_level for item in imports_of(source, {"tasks.a": "", "tasks.b": ""})}
    assert levels == {"typing": True, "tasks.a": False, "tasks.b": True}


def test_long_files_and_functions_are_found() -> None:
    assert size_complaints("long.py", "x = 1\n" * 301) == ["long.py has 301 lines, more than 300"]
    body = '    """Docstrings do not count."""\n' + "    x = 1\n" * 46
    assert size_complaints("f.py", f"def f():\n{body}") == ["f.py: f has 46 lines of body, more than 45"]
    assert size_complaints("f.py", f"def f():\n{body}".replace("    x = 1\n", "", 1)) == []


@pytest.mark.parametrize(
    "line",
    ["path = '@home@ada@data'", "open('@tmp@x')", "see https:@@pypi~org@simple", "files.pythonhosted~org"],
)
def test_machine_paths_and_registries_are_found(line: str) -> None:
    written_out = line.replace("@", "/").replace("~", ".")  # this file must pass its own rule
    assert len(machine_complaints("file", written_out)) == 1


@pytest.mark.parametrize("line", ["a/home/b", "s3://bucket/tmp/x", "~/.gwm", "docs/work/x", "./tmp/y"])
def test_paths_of_no_machine_pass(line: str) -> None:
    assert machine_complaints("file", line) == []
