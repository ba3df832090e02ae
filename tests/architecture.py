"""Checkers of the project's shape: pure functions from sources to complaints, one sentence per complaint.

They live apart from ``test_architecture.py`` so that each can also be run on a bad snippet.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("model", "tasks", "pipelines")
MAX_FILE_LINES = 300
MAX_BODY_LINES = 45

MODEL_MAY_IMPORT = {"torch", "numpy", "timm", "torchvision", "jaxtyping", "cv2", "safetensors", "numba", "model"}
ONLY_IN = {
    "cv2": "model.dis",
    "safetensors": "model.weights",
    "numba": "model.compiled",
}  # inside model/: one room each
TASKS_MAY_NOT_IMPORT = {"prefect", "prefect_ray", "pipelines", "tests", "benchmarks"}
PIPELINES_MAY_NOT_IMPORT = {"ray", "prefect_ray", "tests", "benchmarks"}
PIPELINES_MAY_IMPORT_OF_MODEL = {"model.errors"}

MACHINE_PATH = re.compile(r"(?<![\w.:/}\-])/(?:home|root|Users|work|mnt|tmp(?!/ray/))/\w|[A-Z]:\\Users")
REGISTRY_HOST = re.compile(
    r"\b(?:pypi|pythonhosted|anaconda|npmjs)\.\w{2,}|--(?:extra-)?index-url[ =]\S*://",  # any domain of theirs
)


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported module and whether the import runs when the importing module is loaded."""

    name: str
    module_level: bool


def project_modules(root: Path = ROOT) -> dict[str, str]:
    """Return module name -> source of every module in the three layers."""
    modules = {}
    for layer in LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return modules


def python_files(root: Path = ROOT) -> list[Path]:
    """Return every Python file of the project, tests and benchmarks included."""
    folders = (*LAYERS, "tests", "benchmarks", "infra")
    return [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]


def tracked_files(root: Path = ROOT) -> list[Path]:
    """Return the files that a clone would hold; all files of the known folders where there is no git."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        return [path for name in listing.stdout.split("\0") if name and (path := root / name).is_file()]
    return [*python_files(root), *sorted(root.glob("*.*")), *sorted((root / "infra").iterdir())]


def imports_of(source: str, modules: Mapping[str, str]) -> Iterator[Import]:
    """Yield what a module imports; ``from package import submodule`` names the submodule."""
    tree = ast.parse(source)
    top_level = set(_module_level_nodes(tree))
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [full if (full := f"{base}.{alias.name}") in modules else base for alias in node.names]
        yield from (Import(name=name, module_level=node in top_level) for name in dict.fromkeys(names))


def _module_level_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield nodes that run on import: not inside functions, not under ``if TYPE_CHECKING``."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        yield node
        type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not type_checking:
            pending.extend(ast.iter_child_nodes(node))


def layer_complaints(modules: Mapping[str, str]) -> list[str]:
    """Complain about imports that point the wrong way or bring in a banned package."""
    return [
        f"{module} imports {imported.name}: {reason}"
        for module, source in modules.items()
        for imported in imports_of(source, modules)
        if (reason := _why_banned(module, imported.name))
    ]


def _why_banned(module: str, name: str) -> str | None:
    layer, package = module.split(".")[0], name.split(".")[0]
    if name.startswith("."):
        return "relative imports hide the layer; write the full name"
    if layer == "model" and package not in MODEL_MAY_IMPORT and package not in sys.stdlib_module_names:
        return f"model/ may import the standard library and {', '.join(sorted(MODEL_MAY_IMPORT))}"
    if layer == "model" and package in ONLY_IN and module != ONLY_IN[package]:
        return f"{package} belongs in {ONLY_IN[package]} only"
    if layer == "tasks" and package in TASKS_MAY_NOT_IMPORT:
        return "tasks/ knows neither Prefect nor the layers above it"
    if layer == "pipelines" and package in PIPELINES_MAY_NOT_IMPORT:
        return "pipelines/ reaches Ray through tasks/"
    if layer == "pipelines" and package == "model" and name not in PIPELINES_MAY_IMPORT_OF_MODEL:
        return "pipelines/ knows models by reference; go through tasks/"
    return None


def import_graph(modules: Mapping[str, str], *, module_level_only: bool) -> dict[str, set[str]]:
    """Return module -> project modules it imports."""
    return {
        module: {
            imported.name
            for imported in imports_of(source, modules)
            if imported.name in modules and (imported.module_level or not module_level_only)
        }
        for module, source in modules.items()
    }


def find_cycle(graph: Mapping[str, set[str]]) -> list[str] | None:
    """Return one import cycle as a path that ends where it starts, or None."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return None
        for imported in sorted(graph.get(module, ())):
            if cycle := visit(imported, [*path, module]):
                return cycle
        finished.add(module)
        return None

    for module in graph:
        if cycle := visit(module, []):
            return cycle
    return None


def size_complaints(name: str, source: str) -> list[str]:
    """Complain about a file or a function body that is too long to be read in one go."""
    num_lines = len(source.splitlines())
    complaints = [f"{name} has {num_lines} lines, more than {MAX_FILE_LINES}"] if num_lines > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _body_lines(node) > MAX_BODY_LINES:
            complaints.append(f"{name}: {node.name} has {_body_lines(node)} lines of body, more than {MAX_BODY_LINES}")
    return complaints


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def machine_complaints(name: str, text: str) -> list[str]:
    """Complain about absolute paths of one machine and names of package registries."""
    return [
        f"{name}:{number}: {what}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in (("path of one machine", MACHINE_PATH), ("registry host", REGISTRY_HOST))
        if pattern.search(line)
    ]
