"""The world's models: every one inside the onnx package, as far as this runtime reads them brought to a version it reads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

#: What ONNX Runtime 1.31 reads; the newest operators of the onnx package are newer than that.
IR_VERSION, OPSET = 13, 26
#: Models of some hundred layers on images of 224 x 224: seconds for each judgement, so that they meet few mutations.
HEAVY = "light"


@dataclass(frozen=True)
class Specimen:
    """One model. ``family`` is the operator it is about (or the folder it stands in), ``data`` ONNX's own (inputs, outputs) of
    it, as lists in the graph's order."""

    name: str
    family: str
    model: onnx.ModelProto
    data: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...] = ()

    @property
    def heavy(self) -> bool:
        return self.family == HEAVY

    def copy(self) -> onnx.ModelProto:
        copied = onnx.ModelProto()
        copied.CopyFrom(self.model)
        return copied


@cache
def specimens() -> tuple[Specimen, ...]:
    """All of them, by name; the operators' test models are made by the onnx package itself, which takes some seconds."""
    found = {specimen.name: specimen for specimen in (*_stored(), *_made())}
    return tuple(found[name] for name in sorted(found))


def _stored() -> Iterator[Specimen]:
    """The files under ``onnx/backend/test/data``."""
    base = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(base.rglob("*.onnx")):
        folder = path.relative_to(base).parts[0]
        named = path.stem if path.stem != "model" else path.parent.name
        data = tuple(_read(path.parent, number) for number in range(len(list(path.parent.glob("test_data_set_*")))))
        yield Specimen(f"{folder}/{named}", folder, pinned(onnx.load(path)), data)


def _read(folder: Path, number: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    sides = []
    for side in ("input", "output"):
        files = sorted(
            (folder / f"test_data_set_{number}").glob(f"{side}_*.pb"), key=lambda p: int(p.stem[len(side) + 1 :])
        )
        sides.append(tuple(_tensor(path) for path in files))
    return sides[0], sides[1]


def _tensor(path: Path) -> Any:
    """The values of a file, or None for what is no tensor (a sequence or an optional)."""
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        return numpy_helper.to_array(tensor) if tensor.data_type else None
    except Exception:  # protobuf and numpy share no base but Exception
        return None


def _made() -> Iterator[Specimen]:
    """The models the onnx package makes for each operator when it is asked to test a backend."""
    from onnx.backend.test.case import model as models
    from onnx.backend.test.case import node as nodes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they divide by zero on purpose
        cases = [*nodes.collect_testcases(None), *models.collect_testcases()]
    for case in {id(case): case for case in cases}.values():
        if case.model is None:  # a name for one of the files above
            continue
        operators = [node.op_type for node in case.model.graph.node]
        family = operators[0] if case.kind == "node" and len(operators) == 1 else case.kind
        data = tuple((tuple(inputs), tuple(outputs)) for inputs, outputs in case.data_sets or ())
        yield Specimen(f"{case.kind}/{case.name}", family, pinned(case.model), data)


def pinned(given: onnx.ModelProto) -> onnx.ModelProto:
    """The model in the newest version the runtime reads, if that says the same: no operator of it was redefined since."""
    model = onnx.ModelProto()
    model.CopyFrom(given)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    newest = versions.get("", 0)
    if newest > OPSET and all(_same(node, newest) for node in _nodes(model.graph) if node.domain == ""):
        for entry in model.opset_import:
            entry.version = OPSET if entry.domain == "" else entry.version
    model.ir_version = min(model.ir_version, IR_VERSION)
    return model


def _same(node: onnx.NodeProto, version: int) -> bool:
    try:
        return bool(
            onnx.defs.get_schema(node.op_type, OPSET, "").since_version
            == onnx.defs.get_schema(node.op_type, version, "").since_version
        )
    except onnx.defs.SchemaError:
        return False


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def sample() -> tuple[Specimen, ...]:
    """One model of every operator family, one of every eight of the exported networks, and of every forty that are made
    of several operators; always the same."""
    chosen: dict[str, Specimen] = {}
    for specimen in specimens():
        chosen.setdefault(specimen.family, specimen)
    exported = [s for s in specimens() if s.family.startswith("pytorch")]
    expanded = [s for s in specimens() if s.family == "node"]
    picked = {s.name: s for s in (*chosen.values(), *exported[::8], *expanded[::40]) if not s.heavy}
    return tuple(picked[name] for name in sorted(picked))


def opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain == ""), default=0)
