"""The order of the layers and the import budget: modules import upwards only, and the command line starts light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gitmodel"

#: From the top down: a module imports only from its own layer or from layers above it.
LAYERS = [
    {"errors", "resources"},
    {"files"},
    {"bundle"},
    {"versions"},
    {"formats"},
    {"git"},
    {"storage"},
    {"runtime"},
    {"sandbox"},
    {"signing"},
    {"endpoint"},
    {"registry"},
    {"history"},
    {"compat"},
    {"workflows", "serving"},
    {"hooks"},
    {"doctor"},
    {"cli"},
    {"__init__", "__main__"},
]
#: Each heavy library has one owner; everybody else asks that module.
OWNERS = {
    "git": {"gitmodel.git.objects", "gitmodel.git.reading"},
    "h5py": {
        "gitmodel.formats.hdf5",
        "gitmodel.formats.hdf5_export",
        "gitmodel.formats.hdf5_unpack",
        "gitmodel.formats.hdf5_walk",
        "gitmodel.formats.hdf5_writing",
        "gitmodel.formats.stored",
    },
    "onnx": {"gitmodel.formats.onnx", "gitmodel.formats.onnx_facts"},
    "onnxruntime": {"gitmodel.runtime"},
    "dvc": {"gitmodel.storage.remote", "gitmodel.storage.settings", "gitmodel.storage.setup"},
    "dvc_data": {"gitmodel.storage.remote"},
    "dvc_objects": {"gitmodel.storage.remote", "gitmodel.storage.settings"},
    "uvicorn": {"gitmodel.serving.connection", "gitmodel.serving.web"},
    "typer": {
        "gitmodel.cli",
        "gitmodel.cli.console",
        "gitmodel.cli.export",
        "gitmodel.cli.golden",
        "gitmodel.cli.models",
        "gitmodel.cli.review",
        "gitmodel.cli.operate",
        "gitmodel.cli.maintain",
        "gitmodel.cli.transfer",
    },
}
#: What a module that imports them at its top costs nobody who does not need it.
TOP_LEVEL = {"git", "typer", "uvicorn", "msgspec", "orjson", "yaml"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def layer_of(module: str) -> int:
    found = [index for index, rooms in enumerate(LAYERS) if room_of(module) in rooms]
    assert found, f"{module} stands in no layer"
    return found[0]


def imports_of(path: Path, *, lazy: bool = True) -> set[str]:
    """Full names of all that a file imports, imports inside functions and TYPE_CHECKING blocks counted."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_file_stands_in_a_layer() -> None:
    assert {room_of(name_of(path)) for path in MODULES} == set().union(*LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_upwards_only(path: Path) -> None:
    module = name_of(path)
    if room_of(module) == "__init__":
        return
    for imported in imports_of(path):
        if imported.startswith("gitmodel."):
            assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}, which is below it"


def test_workflows_and_serving_do_not_know_each_other() -> None:
    for path in MODULES:
        module = name_of(path)
        for one, other in (("workflows", "serving"), ("serving", "workflows")):
            if room_of(module) == one:
                assert not [name for name in imports_of(path) if name.startswith(f"gitmodel.{other}")], module


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_heavy_library_is_imported_by_its_owner_alone(path: Path) -> None:
    module = name_of(path)
    for imported in imports_of(path):
        owners = OWNERS.get(imported.split(".")[0])
        assert owners is None or module in owners, f"{module} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    heavy = (set(OWNERS) | {"numpy"}) - TOP_LEVEL
    top = {name.split(".")[0] for name in imports_of(path, lazy=False)}
    assert not top & heavy


def test_there_are_no_import_cycles() -> None:
    modules = {name_of(path) for path in MODULES}
    graph = {name_of(path): imports_of(path) & modules - {name_of(path)} for path in MODULES}
    graph["gitmodel"] = set()  # exports lazily, by name
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = "import sys, json, gitmodel.cli; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)))
    heavy = {"dvc", "dvc_data", "dvc_objects", "git", "onnx", "onnxruntime", "h5py", "numpy", "uvicorn", "yaml", "rich"}
    assert not loaded & heavy


def test_library_code_does_not_print_or_read_the_environment() -> None:
    for path in MODULES:
        if room_of(name_of(path)) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "input"), f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found = (node.value.id, node.attr)
                assert found not in {("os", "environ"), ("os", "getenv"), ("sys", "argv")}, f"{path}:{node.lineno}"
