"""Versions that must not be served: each kind is a way to spoil a good bundle, in Git or where its weights lie."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VIEW, HDF5 = "model.onnx", "weights.h5"


@dataclass(frozen=True)
class Bundle:
    """``folder`` is the model in the author's working tree; ``storage`` the DVC remote; ``salt`` makes its bytes new ones,
    so that no server knows them yet."""

    folder: Path
    storage: Path
    salt: str

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        if old not in text:
            raise ValueError(f"{name} has no {old!r}")
        (self.folder / name).write_text(text.replace(old, new))

    def entry(self, path: str) -> list[str]:
        """``file``, path, size, sha256 and md5, as the lock has them."""
        lines = (line.split(" ") for line in (self.folder / "weights.lock").read_text().splitlines())
        return next(fields for fields in lines if fields[:2] == ["file", path])

    def vouch(self, path: str, size: object = None, sha256: str = "", md5: str = "") -> None:
        """What the lock says of a file from now on."""
        old = self.entry(path)
        new = ["file", path, str(old[2] if size is None else size), sha256 or old[3], md5 or old[4]]
        self.edit("weights.lock", " ".join(old), " ".join(new))

    def object(self, md5: str) -> Path:
        return self.storage / "files" / "md5" / md5[:2] / md5[2:]

    def read(self, path: str) -> bytes:
        return self.object(self.entry(path)[4]).read_bytes()

    def put(self, path: str, data: bytes) -> None:
        """Other bytes, in the remote, and a lock that vouches for them."""
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        place = self.object(md5)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.write_bytes(data)
        self.vouch(path, len(data), hashlib.sha256(data).hexdigest(), md5)

    def graph(self, change: Callable[[onnx.ModelProto], None]) -> None:
        """Puts the view with a change to it."""
        model = onnx.load_model_from_string(self.read(VIEW))
        model.doc_string = self.salt
        change(model)
        self.put(VIEW, model.SerializeToString())


def _points(location: str, **more: str) -> Callable[[Bundle], None]:
    """A graph whose weights are to be read from somewhere else."""

    def change(model: onnx.ModelProto) -> None:
        (tensor,) = model.graph.initializer
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        kept = {entry.key: entry.value for entry in tensor.external_data} | more
        del tensor.external_data[:]
        for key, value in (kept | {"location": location or kept["location"]}).items():
            tensor.external_data.add(key=key, value=value)

    return lambda bundle: bundle.graph(change)


def _node(**fields: str) -> Callable[[Bundle], None]:
    def change(model: onnx.ModelProto) -> None:
        for key, value in fields.items():
            setattr(model.graph.node[0], key, value)

    return lambda bundle: bundle.graph(change)


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "z"
    model.graph.node.add(op_type="Add", input=["z", "w"], output=["y"])
    model.graph.node.add(op_type="Add", input=["y", "y"], output=["w"])


def _no_product(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[:] = ["weight", "x"]


def _vast(model: onnx.ModelProto) -> None:
    """More than any address space holds, so that no machine is tempted to try."""
    shape = numpy_helper.from_array(np.array([1 << 45], np.int64), "vast_shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["vast_shape"], ["vast"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["vast"], ["one"], keepdims=0))
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(helper.make_node("Add", ["z", "one"], ["y"]))


def _set_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def _set_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def _rubbish(size: int, salt: str) -> bytes:
    return random.Random(salt).randbytes(size)


def _false_goldens(bundle: Bundle) -> None:
    for path in bundle.folder.glob("golden/**/output_0.pb"):
        wrong = numpy_helper.from_array(np.full((1, 10), 7, np.float32), "y")
        path.write_bytes(wrong.SerializeToString())


def _spoilt_golden(bundle: Bundle) -> None:
    next(iter(sorted(bundle.folder.glob("golden/**/output_0.pb")))).write_bytes(_rubbish(200, bundle.salt))


def _damaged(bundle: Bundle) -> None:
    """A bit that is not what it was, in the remote: the lock is right."""
    data = bundle.read(VIEW) + bundle.salt.encode()
    bundle.put(VIEW, data)
    place = bundle.object(bundle.entry(VIEW)[4])
    place.chmod(0o644)
    place.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def _without(name: str) -> Callable[[Bundle], None]:
    return lambda bundle: (bundle.folder / name).unlink()


def _checkpoint(bundle: Bundle) -> None:
    bundle.edit("weights.lock", " ".join(bundle.entry(VIEW)) + "\n", "")


def _unclosed(bundle: Bundle) -> None:
    (bundle.folder / "model.yaml").write_text("name: [unclosed\n")


def _bomb(bundle: Bundle) -> None:
    names = "abcdefghi"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in itertools.pairwise(names)]
    (bundle.folder / "signature.yaml").write_text("\n".join(lines) + "\n")


#: What is wrong, and how a good bundle comes to it.
KINDS: dict[str, Callable[[Bundle], None]] = {
    "truncated ONNX": lambda b: b.put(VIEW, (data := b.read(VIEW))[: len(data) - 40 - int(b.salt) % 40]),
    "not ONNX at all": lambda b: b.put(VIEW, _rubbish(4000, b.salt)),
    "empty ONNX file": lambda b: b.put(VIEW, b""),
    "a git-lfs pointer for a model": lambda b: b.put(VIEW, f"version https://git-lfs.github.com/spec/v1\n{b.salt}".encode()),
    "unknown operator": _node(op_type="NoSuchOperator"),
    "unknown domain": _node(domain="com.example"),
    "opset too new": lambda b: b.graph(_set_opset),
    "IR too new": lambda b: b.graph(_set_ir),
    "a graph that runs in a circle": lambda b: b.graph(_cycle),
    "shapes that do not multiply": lambda b: b.graph(_no_product),
    "a constant of 2^45 elements": lambda b: b.graph(_vast),
    "external data in a folder above": _points("../../../config"),
    "external data at an absolute path": _points("/etc/hostname"),
    "external data the lock does not list": _points("other.bin"),
    "external data past the end": _points("", offset=str(1 << 40)),
    "HDF5 rubbish": lambda b: b.put(HDF5, _rubbish(len(b.read(HDF5)), b.salt)),
    "truncated HDF5": lambda b: b.put(HDF5, b.read(HDF5)[: 100 + int(b.salt)]),
    "golden cases that fail": _false_goldens,
    "a golden case that is no tensor": _spoilt_golden,
    "wrong sha256 in weights.lock": lambda b: b.vouch(VIEW, sha256=hashlib.sha256(b.salt.encode()).hexdigest()),
    "wrong size in weights.lock": lambda b: b.vouch(VIEW, size=1_000_000 + int(b.salt)),
    "object missing in the remote": lambda b: b.vouch(
        VIEW, md5=hashlib.md5(b.salt.encode(), usedforsecurity=False).hexdigest()
    ),
    "object damaged in the remote": _damaged,
    "weights.lock is no lock": lambda b: b.edit("weights.lock", "# gitmodel weights.lock v1", "# something else"),
    "weights.lock leaves its folder": lambda b: b.edit("weights.lock", f"file {VIEW} ", f"file ../{VIEW} "),
    "no weights.lock": _without("weights.lock"),
    "a checkpoint without a graph": _checkpoint,
    "invalid YAML in the card": _unclosed,
    "an alias bomb in the signature": _bomb,
    "no signature": _without("signature.yaml"),
    "a signature that lies about a name": lambda b: b.edit("signature.yaml", "name: x", "name: q"),
    "a signature that lies about a type": lambda b: b.edit("signature.yaml", "float32", "float64"),
    "a signature that lies about a shape": lambda b: b.edit("signature.yaml", "64", "65"),
}  # fmt: skip
