"""What the tests of stored bundles share: a source kept as ``save`` keeps it, and what makes two models the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import onnx

from gitmodel import formats
from gitmodel.bundle.lock import Lock
from gitmodel.formats import stored
from gitmodel.formats.source import Source
from gitmodel.storage.cache import Cache
from gitmodel.workflows.store import store_weights


def keep(source: Source, root: Path) -> tuple[Path, Lock]:
    """The ``weights/`` folder that saving the source makes, below ``root``, and its lock."""
    cache, folder = Cache(root / "cache"), root / "weights"
    lock, _ = store_weights(source, cache, None)
    for entry in lock.files:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        os.link(cache.path(entry.md5), target)
    return folder, lock


@contextmanager
def kept(path: Path, root: Path) -> Iterator[stored.Stored]:
    """The file read, stored below ``root`` and read back."""
    with closing(formats.read(path)) as source:
        folder, lock = keep(source, root)
    with closing(stored.read(folder, lock)) as back:
        yield back


def exported(path: Path, ending: str, root: Path) -> Path:
    """The file saved and exported again as a file of this ending."""
    root.mkdir(exist_ok=True)
    with kept(path, root) as source:
        return formats.write(source, root / f"exported{ending}")[0]


def contents(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """(dtype, shape, bytes) of every tensor in a model file by name."""
    with closing(formats.read(path)) as source:
        found = values(source)
        assert len(found) == len(source.tensors)
        return found


def values(source: Source) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {tensor.name: (tensor.dtype, tensor.shape, bytes(tensor.data)) for tensor in source.tensors}


def assert_same_model(left: Any, right: Any) -> None:
    """Two ModelProtos are equal field by field, unknown fields counted; large tensors by their values, since a file may
    write them as raw data or number by number."""
    one, other = _plain(left), _plain(right)
    assert one == other
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def _plain(model: Any) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    for tensor in tensors_in(copy):
        if tensor.data_location == onnx.TensorProto.DEFAULT:
            tensor.ClearField("data_location")  # said or unsaid it means the same
        if tensor.data_type != onnx.TensorProto.STRING and not tensor.HasField("raw_data"):
            packed = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor))
            for typed in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(typed)
            tensor.raw_data = packed.raw_data
    return copy


def tensors_in(message: Any) -> Iterator[Any]:
    """Every TensorProto below, found by reflection and not by any knowledge of ONNX."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from tensors_in(inner)
