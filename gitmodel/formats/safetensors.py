"""safetensors: reads checkpoints, single and sharded, with their tensors mapped; writes one in a stream.

The format is "Format" in the README of huggingface/safetensors: 8 bytes length, a JSON header, and the tensors' bytes
without holes. Its types are ``Dtype`` of ``safetensors/src/tensor.rs``; what is none of them is kept as U8, and the
``__metadata__`` says what it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gitmodel.bundle.lock import inside
from gitmodel.formats import declared
from gitmodel.formats.dtypes import nbytes
from gitmodel.formats.output import pour, replacing
from gitmodel.formats.source import InvalidModel, Source, TensorData, first_line, join, map_file

INDEX = ".safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
METADATA = "__metadata__"
#: The metadata that says what the tensors of other types are; readers of the format see U8.
MARKS = "gitmodel.dtypes"
_LENGTH_BYTES = 8
_DTYPES = {
    "BOOL": "bool", "F4": "float4e2m1", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8e5m2", "F8_E4M3": "float8e4m3fn",
    "F8_E8M0": "float8e8m0", "F8_E4M3FNUZ": "float8e4m3fnuz", "F8_E5M2FNUZ": "float8e5m2fnuz", "I16": "int16",
    "U16": "uint16", "F16": "float16", "BF16": "bfloat16", "I32": "int32", "U32": "uint32", "F32": "float32",
    "C64": "complex64", "F64": "float64", "I64": "int64", "U64": "uint64",
}  # fmt: skip
#: What frameworks write as ``format`` into the metadata.
_FRAMEWORKS = {"pt": "pytorch", "tf": "tensorflow", "flax": "flax", "mlx": "mlx"}
_NAMES = {ours: theirs for theirs, ours in _DTYPES.items()}


def read(path: Path) -> Source:
    """Reads a checkpoint, or all shards that an index names. Raises InvalidModel."""
    return _read_index(path) if path.name.lower().endswith(INDEX) else _read_file(path)


def write(source: Source, path: Path) -> tuple[Path, ...]:
    """Writes the tensors and the metadata as one file. Raises InvalidModel, StorageFailed."""
    header, ordered = _layout(source, str(path))
    with replacing(path) as file:
        file.write(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
        for tensor in ordered:
            pour(file, tensor.data, tensor.seal)
    return (path,)


def _read_file(path: Path) -> Source:
    data = map_file(path)
    try:
        header, buffer = _header(data)
        metadata = dict(declared.texts(header.pop(METADATA, {})))
        marks = declared.load_json(metadata.pop(MARKS, "{}"))
        places = {name: _place(name, entry) for name, entry in header.items()}
        _check_covered(places, len(buffer))
        if unknown := marks.keys() - {name for name in places if header[name]["dtype"] == "U8"}:
            raise ValueError(f"{MARKS} names {min(unknown)[:60]!r}, which is no tensor of bytes")
        tensors = [
            declared.marked(marks.get(name, said), name, buffer[begin:end])
            for name, (said, begin, end) in places.items()
        ]
    except ValueError as error:
        raise InvalidModel(
            f"{path} is no whole safetensors file ({first_line(error)})", hint="save or copy it again"
        ) from None
    framework = _FRAMEWORKS.get(metadata.get("format", ""), "")
    return Source("safetensors", framework, tuple(tensors), metadata=metadata, files=(path,))


def _header(data: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The header and the bytes behind it. Raises ValueError."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if data[_LENGTH_BYTES : _LENGTH_BYTES + 1].tobytes() != b"{":
        raise ValueError("it does not begin with a header")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length} bytes, at most {MAX_HEADER_BYTES} are read")
    if start > len(data):
        raise ValueError(f"it is cut short: its header alone has {length} bytes")
    return declared.load_json(bytes(data[_LENGTH_BYTES:start])), data[start:]


def _place(name: str, entry: Any) -> tuple[dict[str, Any], int, int]:
    """What an entry of the header says of its tensor, and where that begins and ends. Raises ValueError."""
    declared.check_text(name)
    here = f"tensor {name[:60]!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{here} has not just dtype, shape and data_offsets")
    theirs, offsets = entry["dtype"], entry["data_offsets"]
    if not isinstance(theirs, str) or theirs not in _DTYPES:
        raise ValueError(f"{here} has the unknown type {str(theirs)[:20]!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise ValueError(f"{here} has bad offsets")
    try:
        shape = declared.shape(entry["shape"])
    except ValueError as error:
        raise ValueError(f"{here}: {error}") from None
    (begin, end), dtype = offsets, _DTYPES[theirs]
    if end - begin != nbytes(dtype, shape) or not _whole_bytes(dtype, shape):
        raise ValueError(f"{here} has {end - begin} bytes, {theirs}{list(shape)} needs {nbytes(dtype, shape)}")
    return {"dtype": dtype, "shape": shape}, begin, end


def _whole_bytes(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether the last byte is a whole one; the format has no other."""
    return nbytes(dtype, (*shape, 2)) == 2 * nbytes(dtype, shape)


def _check_covered(places: Mapping[str, tuple[Any, int, int]], size: int) -> None:
    """Every byte belongs to one tensor: a file with holes could be something else as well. Raises ValueError."""
    reached = 0
    for begin, end, name in sorted((begin, end, name) for name, (_, begin, end) in places.items()):
        if begin != reached:
            raise ValueError(f"tensor {name[:60]!r} begins at byte {begin}, the one before it ends at {reached}")
        reached = end
    if reached != size:
        raise ValueError(f"it has {size} bytes of tensors, the header accounts for {reached}")


def _layout(source: Source, where: str) -> tuple[bytes, list[TensorData]]:
    """The header, and the tensors as they follow: widest elements first, so that all are aligned, as the library does.
    The header keeps the source's own order."""
    fits = {t.name: t.dtype in _NAMES and _whole_bytes(t.dtype, t.shape) for t in source.tensors}
    ordered = sorted(source.tensors, key=lambda t: nbytes(t.dtype, (1,)) if fits[t.name] else 1, reverse=True)
    begins, reached = {}, 0
    for tensor in ordered:
        begins[tensor.name], reached = reached, reached + len(tensor.data)
    metadata, entries = dict(source.metadata), {}
    marks = {t.name: declared.mark(t) for t in source.tensors if not fits[t.name]}
    try:
        if METADATA in begins or MARKS in metadata:
            raise ValueError(f"the names {METADATA} and {MARKS} mean something else there")
        declared.check_text(*begins, *metadata, *metadata.values())
    except ValueError as error:
        raise InvalidModel(f"{where} cannot hold this model ({error})", hint="rename it, or choose .h5") from None
    if marks:
        metadata[MARKS] = declared.dump_json(marks)
    for tensor in source.tensors:
        begin, size = begins[tensor.name], len(tensor.data)
        kind, shape = (_NAMES[tensor.dtype], list(tensor.shape)) if fits[tensor.name] else ("U8", [size])
        entries[tensor.name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, begin + size]}
    header = declared.dump_json({METADATA: metadata, **entries} if metadata else entries).encode()
    header += b" " * (-len(header) % _LENGTH_BYTES)
    if len(header) > MAX_HEADER_BYTES:
        raise InvalidModel(
            f"{where} cannot hold this model (its names alone take {len(header)} bytes)", hint="choose .h5"
        )
    return header, ordered


def _read_index(path: Path) -> Source:
    """The shards that the index names, as one checkpoint, in the index's order of tensors."""
    try:
        data = map_file(path)
        if len(data) > MAX_HEADER_BYTES:
            raise ValueError(f"it has {len(data)} bytes, at most {MAX_HEADER_BYTES} are read")
        files = declared.texts(declared.load_json(bytes(data)).get("weight_map"))
        if not files:
            raise ValueError("it names no shard")
        shards = [_read_file(_shard(path, file)) for file in dict.fromkeys(files.values())]
        whole = join(shards)
        _check_listed(files, shards)
    except ValueError as error:
        raise InvalidModel(
            f"{path} is no index of shards ({first_line(error)})", hint="save or copy it again"
        ) from None
    found = {tensor.name: tensor for tensor in whole.tensors}
    return replace(whole, tensors=tuple(found[name] for name in files), files=(path, *whole.files))


def _shard(index: Path, file: str) -> Path:
    """The path of a shard, which has to stand beside the index or below it. Raises ValueError, InvalidModel."""
    path = index.parent / inside(file)
    if not Path(os.path.realpath(path)).is_relative_to(index.parent.resolve()):
        raise InvalidModel(
            f"{index}: the shard {file} links out of its folder", hint="copy the shards beside the index"
        )
    return path


def _check_listed(files: Mapping[str, str], shards: Sequence[Source]) -> None:
    """Every tensor stands in the file the index says, and no other is there. Raises ValueError."""
    names = list(dict.fromkeys(files.values()))
    held = {tensor.name: file for file, shard in zip(names, shards, strict=True) for tensor in shard.tensors}
    for name in (*files, *held):
        if files.get(name) != held.get(name):
            there, said = held.get(name, "no shard"), files.get(name, "none")
            raise ValueError(f"tensor {name[:60]!r} stands in {there}, the index says {said}")
