"""npz: reads and writes what ``numpy.savez`` and ``numpy.savez_compressed`` do, one array a tensor.

A member ``gitmodel.json`` says what an npz has no words for: types numpy lacks, names that no member can have, metadata.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from gitmodel.formats import declared, npy
from gitmodel.formats.dtypes import storage
from gitmodel.formats.npz_zip import members
from gitmodel.formats.output import pour, replacing
from gitmodel.formats.source import (
    InvalidModel,
    Source,
    TensorData,
    UnsafeModel,
    UnsafePart,
    first_line,
    map_file,
    rooms,
)

ABOUT = "gitmodel.json"
_ENDING = ".npy"
_MAX_ABOUT_BYTES = 100_000_000
_MAX_NAME_BYTES = 60_000  # a zip file takes 65535


class _About(Struct, frozen=True):
    """What ``gitmodel.json`` says: tensor names by array name, and types and shapes by tensor name."""

    metadata: Mapping[str, str]
    names: Mapping[str, str]
    tensors: Mapping[str, Any]

    @classmethod
    def from_json(cls, data: memoryview | bytes) -> _About:
        """Raises ValueError."""
        if len(data) > _MAX_ABOUT_BYTES:
            raise ValueError(f"{ABOUT} has {len(data)} bytes, at most {_MAX_ABOUT_BYTES} are read")
        said = declared.load_json(bytes(data))
        if unknown := said.keys() - {"metadata", "names", "tensors"}:
            raise ValueError(f"{ABOUT} has the unknown key {min(unknown)[:60]!r}")
        tensors = said.get("tensors", {})
        if not isinstance(tensors, dict):
            raise ValueError(f"{ABOUT} has no mapping of tensors")  # noqa: TRY004 (a fact about the data)
        return cls(declared.texts(said.get("metadata", {})), declared.texts(said.get("names", {})), tensors)


def read(path: Path) -> Source:
    """Reads an archive; objects are never unpickled. Raises InvalidModel, StorageFailed when it does not fit the disk."""
    data = map_file(path)
    try:
        found = members(path, data)
        about = _About.from_json(found.pop(ABOUT, memoryview(b"{}")))
        arrays = _named(found, about)
        if unknown := about.tensors.keys() - {name for name, array in arrays.items() if array.dtype.kind == "u"}:
            raise ValueError(f"{ABOUT} says what {min(unknown)[:60]!r} is, which is no array of bytes")
        bodies = _bodies(arrays)
        tensors = [_tensor(name, array, bodies[name], about) for name, array in arrays.items()]
    except ValueError as error:
        kind = UnsafeModel if isinstance(error, UnsafePart) else InvalidModel
        raise kind(
            f"{path} is no npz of plain arrays ({first_line(error)})", hint="write it with numpy.savez"
        ) from None
    return Source("npz", "", tuple(tensors), metadata=about.metadata, files=(path,))


def write(source: Source, path: Path) -> tuple[Path, ...]:
    """Writes the tensors uncompressed, so that they can be mapped. Raises InvalidModel, StorageFailed."""
    try:
        declared.check_text(*(tensor.name for tensor in source.tensors), *source.metadata, *source.metadata.values())
    except ValueError as error:
        raise InvalidModel(f"{path} cannot hold this model ({error})", hint="rename it, or choose .h5") from None
    names = _array_names(tensor.name for tensor in source.tensors)
    marks = {}
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for tensor in source.tensors:
            dtype, shape, data = _stored(tensor)
            if dtype.kind == "u" and dtype.name != tensor.dtype:
                marks[tensor.name] = declared.mark(tensor)
            with archive.open(_info(names[tensor.name] + _ENDING), "w", force_zip64=True) as member:
                npy.write_header(member, dtype, shape)
                pour(member, data, tensor.seal)
        said = {
            "metadata": dict(source.metadata),
            "names": {stored: name for name, stored in names.items() if stored != name},
            "tensors": marks,
        }
        if any(said.values()):
            about = {key: value for key, value in said.items() if value}
            archive.writestr(_info(ABOUT), declared.dump_json(about).encode())
    return (path,)


def _named(found: Mapping[str, memoryview], about: _About) -> dict[str, npy.Array]:
    """Every array by the name of its tensor. Raises ValueError."""
    arrays: dict[str, npy.Array] = {}
    for member, body in found.items():
        stored = member.removesuffix(_ENDING)
        if stored == member or not _is_member_name(stored):
            raise UnsafePart(f"the member {member[:60]!r} is none of numpy's")
        name = about.names.get(stored, stored)
        if name in arrays:
            raise ValueError(f"the tensor {name[:60]!r} stands in it twice")
        try:
            arrays[name] = npy.parse(body)
        except ValueError as error:
            kind = UnsafePart if isinstance(error, UnsafePart) else ValueError
            raise kind(f"{member[:60]!r}: {first_line(error)}") from None
    if unknown := about.names.keys() - {member.removesuffix(_ENDING) for member in found}:
        raise ValueError(f"{ABOUT} names {min(unknown)[:60]!r}, which is not there")
    return arrays


def _bodies(arrays: Mapping[str, npy.Array]) -> dict[str, memoryview]:
    """The tensors' bytes: those of the member, or on disk in the right order. Raises ValueError."""
    turned = {name: array for name, array in arrays.items() if not (array.is_text or array.is_plain)}
    room = dict(zip(turned, rooms([len(array.body) for array in turned.values()]), strict=True))
    bodies = {}
    for name, array in arrays.items():
        if array.is_text:
            bodies[name] = npy.texts(array)
        else:
            bodies[name] = npy.reorder(array, room[name]) if name in room else array.body
    return bodies


def _tensor(name: str, array: npy.Array, body: memoryview, about: _About) -> TensorData:
    if name in about.tensors:
        return declared.marked(about.tensors[name], name, body)
    return TensorData(name, "string" if array.is_text else array.dtype.name, array.shape, body)


def _stored(tensor: TensorData) -> tuple[Any, tuple[int, ...], memoryview]:
    """The numpy dtype, shape and bytes under which a tensor is written."""
    import numpy as np

    if tensor.dtype == "string":
        values = npy.text_array(tensor.data, tensor.shape)
        if values is None:
            return np.dtype("uint8"), (len(tensor.data),), tensor.data
        return values.dtype, tensor.shape, memoryview(values.tobytes())
    return *storage(tensor.dtype, tensor.shape), tensor.data


def _info(name: str) -> zipfile.ZipInfo:
    """A member without a time of its own: equal tensors give equal files."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    return info


def _array_names(names: Iterable[str]) -> dict[str, str]:
    """The array's name for each tensor: its own, or that escaped where no member can have it."""
    ordered = list(names)
    out = {name: name for name in ordered if _is_member_name(name) and not name.endswith(_ENDING)}
    used = set(out)
    for name in ordered:
        if name not in out:
            escaped = name
            for character, code in (("%", "%25"), ("/", "%2F"), ("\\", "%5C"), ("\0", "%00"), (_ENDING, "%2Enpy")):
                escaped = escaped.replace(character, code)
            escaped = escaped.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
            while escaped in ("", ".", "..", *used):
                escaped += "%"
            out[name] = escaped
            used.add(escaped)
    return out


def _is_member_name(name: str) -> bool:
    """Whether a file of that name stays where an archive is unpacked."""
    inside = all(part not in ("", ".", "..") for part in re.split(r"[/\\]", name))
    return inside and "\0" not in name and len(name.encode()) <= _MAX_NAME_BYTES
