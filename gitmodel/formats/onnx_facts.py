"""What runtimes look at before they load an ONNX model: versions, domains, files outside; and what onnx's own checker says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from gitmodel.bundle.lock import inside
from gitmodel.formats import wire
from gitmodel.formats.onnx_walk import EXTERNAL, tensors
from gitmodel.formats.source import first_line

ONNX, ML = "", "ai.onnx.ml"
_STANDARD = {ONNX, ML, "ai.onnx", "ai.onnx.training", "ai.onnx.preview.training", "ai.onnx.preview"}


class Facts(Struct, frozen=True):
    """``opsets`` has the version of each domain that a node really uses; ``foreign`` those domains among them that are
    neither ONNX's own nor defined by the model itself."""

    ir: int
    opsets: Mapping[str, int]
    foreign: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"ir": self.ir, "opsets": dict(self.opsets), "foreign": list(self.foreign)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Facts:
        opsets = {str(domain): int(version) for domain, version in value["opsets"].items()}
        return cls(int(value["ir"]), opsets, tuple(map(str, value["foreign"])))


class Outside(Struct, frozen=True):
    """Something wrong with data kept in another file: it is ``missing``, ``escapes`` the folder, or does not ``fit``."""

    kind: str
    text: str


def facts_of(model: Any) -> Facts:
    """An import that no node uses counts for nothing: runtimes do not mind it."""
    used = {_usual(node.domain) for node in _nodes(model.graph)}
    local = set()
    for function in model.functions:
        local.add(_usual(function.domain))
        used |= {_usual(node.domain) for node in _all_nodes(function.node)}
    opsets = {_usual(entry.domain): entry.version for entry in model.opset_import if _usual(entry.domain) in used}
    foreign = sorted(used - local - _STANDARD)
    return Facts(model.ir_version, opsets, tuple(foreign))


def _usual(domain: str) -> str:
    return ONNX if domain == "ai.onnx" else domain


def _nodes(graph: Any) -> Iterator[Any]:
    return _all_nodes(graph.node)


def _all_nodes(nodes: Any) -> Iterator[Any]:
    """The nodes and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _nodes(inner)


def size(model: Any, path: Path) -> int:
    """Bytes of the model's file and of those its tensors name."""
    named = {entry.value for _, tensor in tensors(model) for entry in tensor.external_data if entry.key == "location"}
    beside = {path.parent / location for location in named if location and _place(path.parent, location) is None}
    return sum(file.stat().st_size for file in {path, *beside})


def outside(model: Any, folder: Path) -> Iterator[Outside]:
    """What is wrong with the files beside the model that its tensors name."""
    place = cache(partial(_place, folder))  # thousands of tensors may share a file
    for name, tensor in tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_location != EXTERNAL or wire.CUT_KEY in entries:
            continue
        here, location = f"tensor '{name[:80]}'", entries.get("location", "")
        if not location:
            yield Outside("missing", f"{here} names no file for its data")
        elif (problem := place(location)) is not None:
            yield Outside(problem, f"{here} keeps its data in {location[:120]!r}, {_WORDS[problem]}")
        elif text := _span(entries, (folder / location).stat().st_size):
            yield Outside("fit", f"{here} wants {text} of {location[:120]!r}")


_WORDS = {"escapes": "outside the model's folder", "missing": "which is not there"}


def _place(folder: Path, location: str) -> str | None:
    """What is wrong with the place, or None."""
    try:
        path = folder / inside(location.removeprefix("./"))
        real = path.resolve()
        if not real.is_relative_to(folder.resolve()) or path.is_symlink():
            return "escapes"
        return None if real.is_file() else "missing"
    except (ValueError, OSError, RuntimeError):  # absolute or upwards; unreadable; a loop of links
        return "escapes"


def _span(entries: Mapping[str, str], size: int) -> str:
    """Which bytes are asked for that the file does not have; '' when it has them."""
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError:
        return "bytes from no number"
    if offset < 0 or length < 0 or offset + length > size:
        return f"bytes {offset} to {offset + length} of {size}"
    return ""


def complaint(model: Any) -> str:
    """The first thing onnx.checker has against the model, without its large data; '' when it has nothing."""
    plain = type(model)()
    plain.CopyFrom(model)
    for _, tensor in tensors(plain):
        if tensor.data_location == EXTERNAL:  # cut out, or in a file of its own: see ``outside``
            for field in ("data_location", "external_data", "dims"):
                tensor.ClearField(field)
            tensor.dims.append(0)
            tensor.raw_data = b""
    try:
        _native().checker.check_model(plain.SerializeToString())
    except Exception as error:  # ValidationError, and what protobuf raises; they share no other base
        return " ".join(str(error).split("==> Context")[0].split())[:300] or first_line(error)
    return ""


@cache
def _native() -> Any:
    """onnx's compiled part alone: the package takes thirty times as long to import, and finds this when it is."""
    name = "onnx.onnx_cpp2py_export"
    if name not in sys.modules:
        package = importlib.util.find_spec("onnx")
        folder = Path(package.origin).parent if package and package.origin else Path()
        for place in folder.glob("onnx_cpp2py_export*"):
            spec = importlib.util.spec_from_file_location(name, place)
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                sys.modules[name] = module
                spec.loader.exec_module(module)
                break
        else:
            importlib.import_module(name)
    return sys.modules[name]
