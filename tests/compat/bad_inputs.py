"""Files that nobody should trust, each made from nothing: what security.md lists for ONNX, HDF5, npz and YAML.

``bad_inputs.py FOLDER`` writes them all, with the good one that each is compared with, ``bad_inputs.py --yaml NAME BUNDLE``
makes a card or signature a bad one. It imports nothing of gitmodel's and nothing of the tests'.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Writes one bad file beside the good ones and returns it.
Builder = Callable[[Path], Path]
FILES: dict[str, Builder] = {}
#: The card or signature of a committed bundle, with what is wrong: (file, its text instead, or what is added to it).
YAML: dict[str, tuple[str, str]] = {
    "yaml-python-object": ("model.yaml", 'description: !!python/object/apply:os.system ["touch /tmp/owned"]\n'),
    "yaml-alias-bomb": (
        "model.yaml",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
    ),
    "yaml-duplicate-key": ("model.yaml", "description: one\ndescription: two\n"),
    "yaml-nan": ("model.yaml", "gates: {agreement: .nan}\n"),
    "yaml-unknown-key": ("model.yaml", "licnece: MIT\n"),
    "yaml-no-as-a-flag": ("model.yaml", "gates: no\n"),
    "yaml-deep": ("model.yaml", "description: " + "[" * 10_000 + "\n"),
    "yaml-signature-no-mapping": ("signature.yaml", "- x\n"),
}


def bad(builder: Builder) -> Builder:
    """Enters a builder; ``onnx_empty`` is called ``onnx-empty``."""
    FILES[builder.__name__.replace("_", "-")] = builder
    return builder


def good_onnx() -> onnx.ModelProto:
    """``y = x @ w``: float32 [batch, 4] to float32 [batch, 4]."""
    return linear([helper.make_node("MatMul", ["x", "w"], ["y"])], [numpy_helper.from_array(_UNIT, "w")])


_UNIT = np.eye(4, dtype="float32")


def linear(nodes: list[Any], tensors: list[Any] = (), *, ir: int = 10, opset: int = 21) -> onnx.ModelProto:  # type: ignore[assignment]  # nothing is put in
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "graph", sides[:1], sides[1:], list(tensors))
    return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])


def good_for(path: Path) -> Path:
    """The good file beside a bad one."""
    return path.with_name(f"good{path.suffix}")


def write_good(folder: Path) -> None:
    (folder / "good.onnx").write_bytes(good_onnx().SerializeToString())
    with h5py.File(folder / "good.h5", "w") as file:
        file["kernel"] = _UNIT
    np.savez(folder / "good.npz", kernel=_UNIT)


def _write(folder: Path, name: str, model: onnx.ModelProto | bytes) -> Path:
    path = folder / name
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


# ONNX -----------------------------------------------------------------------------------------------------------------


@bad
def onnx_empty(folder: Path) -> Path:
    return _write(folder, "empty.onnx", b"")


@bad
def onnx_random(folder: Path) -> Path:
    return _write(folder, "random.onnx", random.Random(1).randbytes(4096))


@bad
def onnx_truncated(folder: Path) -> Path:
    return _write(folder, "truncated.onnx", good_onnx().SerializeToString()[:-40])


@bad
def onnx_lfs_pointer(folder: Path) -> Path:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"
    return _write(folder, "lfs.onnx", text)


@bad
def onnx_dvc_pointer(folder: Path) -> Path:
    text = b"outs:\n- md5: a304afb96060aad90176268345e10355\n  size: 37\n  hash: md5\n  path: model.onnx\n"
    return _write(folder, "dvc.onnx", text)


def _external(folder: Path, name: str, **entries: str) -> Path:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return _write(folder, name, linear([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor]))


@bad
def onnx_data_above(folder: Path) -> Path:
    return _external(folder, "above.onnx", location="../x")


@bad
def onnx_data_absolute(folder: Path) -> Path:
    return _external(folder, "absolute.onnx", location="/etc/passwd")


@bad
def onnx_data_symlinked(folder: Path) -> Path:
    link = folder / "link.bin"
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
    return _external(folder, "symlinked.onnx", location="link.bin")


@bad
def onnx_data_missing(folder: Path) -> Path:
    return _external(folder, "missing.onnx", location="nowhere.bin")


def _spanned(folder: Path, name: str, **entries: str) -> Path:
    (folder / "some.bin").write_bytes(_UNIT.tobytes())
    return _external(folder, name, location="some.bin", **entries)


@bad
def onnx_offset_negative(folder: Path) -> Path:
    return _spanned(folder, "offset-negative.onnx", offset="-4", length="64")


@bad
def onnx_offset_huge(folder: Path) -> Path:
    return _spanned(folder, "offset-huge.onnx", offset=str(1 << 62), length="64")


@bad
def onnx_length_negative(folder: Path) -> Path:
    return _spanned(folder, "length-negative.onnx", offset="0", length="-64")


@bad
def onnx_length_huge(folder: Path) -> Path:
    return _spanned(folder, "length-huge.onnx", offset="0", length=str(1 << 62))


@bad
def onnx_unknown_domain(folder: Path) -> Path:
    model = linear([helper.make_node("Attack", ["x"], ["y"], domain="com.example")])
    model.opset_import.add(domain="com.example", version=1)
    return _write(folder, "domain.onnx", model)


@bad
def onnx_cyclic(folder: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    return _write(folder, "cyclic.onnx", linear([*nodes, helper.make_node("Neg", ["b"], ["y"])]))


def _dims(folder: Path, name: str, *dims: int) -> Path:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=_UNIT.tobytes())
    return _write(folder, name, linear([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor]))


@bad
def onnx_dims_overflowing(folder: Path) -> Path:
    return _dims(folder, "overflowing.onnx", 1 << 62, 1 << 62, 16)


@bad
def onnx_dims_negative(folder: Path) -> Path:
    return _dims(folder, "negative.onnx", -4, -4)


@bad
def onnx_constant_huge(folder: Path) -> Path:
    """2^36 elements, asked for with a shape of one number."""
    shape = numpy_helper.from_array(np.array([1 << 34, 4], "int64"), "shape")
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    return _write(folder, "constant.onnx", linear(nodes, [shape]))


@bad
def onnx_endless_loop(folder: Path) -> Path:
    value = helper.make_tensor_value_info
    inner = [
        value("i", TensorProto.INT64, []),
        value("go", TensorProto.BOOL, []),
        value("s", TensorProto.FLOAT, ["b", 4]),
    ]
    outer = [value("go2", TensorProto.BOOL, []), value("s2", TensorProto.FLOAT, ["b", 4])]
    nodes = [helper.make_node("Identity", ["go"], ["go2"]), helper.make_node("Neg", ["s"], ["s2"])]
    body = helper.make_graph(nodes, "body", inner, outer)
    loop = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    return _write(folder, "endless.onnx", linear([loop], [numpy_helper.from_array(np.array(True), "yes")]))


@bad
def onnx_deep(folder: Path, depth: int = 5000) -> Path:
    """An If within an If, as often as that: written by hand, for protobuf itself would refuse."""
    leaf = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["r"])], "leaf", [], [helper.make_tensor_value_info("r", 1, None)]
    )
    graph = leaf.SerializeToString()
    for _ in range(depth):
        branches = b"".join(
            _field(5, _field(1, name) + _field(6, body) + b"\xa0\x01\x05")
            for name, body in ((b"then_branch", graph), (b"else_branch", leaf.SerializeToString()))
        )
        node = _field(1, b"c") + _field(2, b"r") + _field(4, b"If") + branches
        graph = _field(1, node) + _field(2, b"deep") + _field(12, leaf.output[0].SerializeToString())
    model = linear([])
    model.graph.ClearField("node")
    whole = model.SerializeToString()
    return _write(folder, "deep.onnx", whole + _field(7, graph))


def _field(number: int, body: bytes) -> bytes:
    """A length-delimited field of the protobuf wire format."""
    out, length = bytes([number << 3 | 2]), len(body)
    while length > 127:
        out, length = out + bytes([length & 127 | 128]), length >> 7
    return out + bytes([length]) + body


@bad
def onnx_newer_ir(folder: Path) -> Path:
    return _write(folder, "newer-ir.onnx", linear([helper.make_node("Neg", ["x"], ["y"])], ir=99))


@bad
def onnx_newer_opset(folder: Path) -> Path:
    return _write(folder, "newer-opset.onnx", linear([helper.make_node("Neg", ["x"], ["y"])], opset=99))


@bad
def onnx_memory_bomb(folder: Path) -> Path:
    """Doubles itself forty times, whatever it is fed."""
    nodes = [helper.make_node("Concat", [f"h{i}", f"h{i}"], [f"h{i + 1}"], axis=0) for i in range(40)]
    flow = [
        helper.make_node("Identity", ["x"], ["h0"]),
        *nodes,
        helper.make_node("ReduceSum", ["h40"], ["y"], keepdims=1),
    ]
    return _write(folder, "bomb.onnx", linear(flow))


# HDF5 -----------------------------------------------------------------------------------------------------------------


@bad
def hdf5_empty(folder: Path) -> Path:
    return _write(folder, "empty.h5", b"")


@bad
def hdf5_random(folder: Path) -> Path:
    return _write(folder, "random.h5", random.Random(2).randbytes(4096))


@bad
def hdf5_truncated(folder: Path) -> Path:
    path = folder / "truncated.h5"
    with h5py.File(path, "w") as file:
        file["kernel"] = np.zeros((64, 64), "float32")
    return _write(folder, path.name, path.read_bytes()[:-100])


@bad
def hdf5_external_storage(folder: Path) -> Path:
    path = folder / "storage.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kernel", (4, 4), "float32", external=[("/etc/passwd", 0, 64)])
    return path


@bad
def hdf5_external_link(folder: Path) -> Path:
    path = folder / "link.h5"
    with h5py.File(path, "w") as file:
        file["kernel"] = h5py.ExternalLink("/etc/passwd", "/kernel")
    return path


@bad
def hdf5_virtual(folder: Path) -> Path:
    path = folder / "virtual.h5"
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4, 4), "float32")
        layout[:] = h5py.VirtualSource("/etc/passwd", "kernel", (4, 4))
        file.create_virtual_dataset("kernel", layout)
    return path


@bad
def hdf5_claims_4_tib(folder: Path) -> Path:
    path = folder / "claims.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kernel", (1 << 20, 1 << 20), "float32", chunks=(1024, 1024), compression="gzip")
    return path


@bad
def hdf5_damaged_checksums(folder: Path) -> Path:
    """Chunks too short to hold their own checksum, which HDF5 2.0 reads beyond."""
    path = folder / "fletcher.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("kernel", (4096,), "u1", chunks=(64,), fletcher32=True, compression="gzip")
        for chunk in range(0, 4096, 64):
            data.id.write_direct_chunk((chunk,), b"\0\1")
    return path


# npz ------------------------------------------------------------------------------------------------------------------


@bad
def npz_objects(folder: Path) -> Path:
    path = folder / "objects.npz"
    np.savez(path, kernel=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return path


class _Owned:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/gitmodel-owned",)


@bad
def npz_pickle(folder: Path) -> Path:
    return _zip(folder, "pickle.npz", {"kernel.npy": pickle.dumps(_Owned())})


def _zip(folder: Path, name: str, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(folder / name, "w", compression) as archive:
        for member, body in members.items():
            archive.writestr(member, body)
    return folder / name


def _npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@bad
def npz_huge(folder: Path) -> Path:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    return _zip(folder, "huge.npz", {"kernel.npy": _npy(header)})


@bad
def npz_nested_header(folder: Path) -> Path:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 5000 + ")" * 5000 + ", }"
    return _zip(folder, "nested.npz", {"kernel.npy": _npy(header)})


@bad
def npz_bomb(folder: Path) -> Path:
    """1.3 GB of zeros in a few MB."""
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("kernel.npy", "w", force_zip64=True) as member,
    ):
        member.write(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (335544320,), }"))
        for _ in range(20):
            member.write(bytes(64 << 20))
    return folder / "bomb.npz"


@bad
def npz_member_above(folder: Path) -> Path:
    body = io.BytesIO()
    np.save(body, _UNIT)
    return _zip(folder, "above.npz", {"../../evil": body.getvalue()})


def write_all(folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    write_good(folder)
    return {name: builder(folder) for name, builder in FILES.items()}


def write_yaml(name: str, bundle: Path) -> None:
    """Makes the text of a bundle a bad one."""
    file, text = YAML[name]
    path = bundle / file
    path.write_text(text if file == "signature.yaml" else path.read_text() + text)


def main(*words: str) -> None:
    if words[0] == "--yaml":
        write_yaml(words[1], Path(words[2]))
        return
    for name, path in write_all(Path(words[0])).items():
        sys.stdout.write(f"{name} {path.name}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
