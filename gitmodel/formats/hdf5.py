"""HDF5: reads checkpoints with their tensors mapped, writes tensor files and the HDF5 view.

Files are written with a pinned library version and no times, so that equal tensors give equal bytes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gitmodel.bundle.signature import DTYPES
from gitmodel.formats.dtypes import is_native, nbytes, storage
from gitmodel.formats.hdf5_walk import naming_damage, open_file, walk
from gitmodel.formats.source import TENSOR_FILE_BYTES, InvalidModel, Source, TensorData, map_file

DATASET = "data"
#: Marks a dataset whose values are of a type HDF5 lacks, kept as integers of the same width.
DTYPE_ATTRIBUTE, SHAPE_ATTRIBUTE = "dtype", "shape"
_NUMERIC_KINDS = "biufc"


@dataclass(frozen=True)
class TensorFile:
    """The bytes around a tensor's own in its file: ``header`` before them, nothing after; ``offset`` is their place."""

    header: bytes
    offset: int


def read(path: Path) -> Source:
    """Reads a checkpoint. Raises InvalidModel for a file that is none, or holds what an untrusted one must not."""
    data = map_file(path)
    with naming_damage(str(path)), contextlib.ExitStack() as refused:
        file = refused.enter_context(open_file(path))
        tensors = [_tensor(name, item, data) for name, item in walk(file) if _is_numeric(item)]
        inner = file.get("model_weights", file)
        framework = "keras" if "keras_version" in file.attrs or "layer_names" in inner.attrs else ""
        refused.pop_all()  # the view is written from it
    return Source("hdf5", framework, tuple(tensors), groups=file)


@lru_cache(maxsize=256)
def tensor_file(dtype: str, shape: tuple[int, ...]) -> TensorFile:
    """The header of a tensor file for one contiguous dataset ``/data`` of this type and shape."""
    import tempfile

    import h5py

    numpy_dtype, stored_shape = storage(dtype, shape)
    # HDF5 reserves the space without writing it, so this costs nothing however large the tensor is.
    with tempfile.NamedTemporaryFile(suffix=".h5") as file:
        fid = h5py.h5f.create(file.name.encode(), h5py.h5f.ACC_TRUNC, fcpl=_file_creation(), fapl=_file_access())
        dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        dcpl.set_layout(h5py.h5d.CONTIGUOUS)
        dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
        dcpl.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        dcpl.set_obj_track_times(False)
        space = h5py.h5s.create_simple(stored_shape)
        dataset = h5py.h5d.create(
            fid, DATASET.encode(), h5py.h5t.py_create(numpy_dtype, logical=True), space, dcpl=dcpl
        )
        if not is_native(dtype):
            _mark(h5py.Dataset(dataset), dtype, shape)
        # The first write takes the space, behind all else: the text of a mark stands outside the dataset's header.
        h5py.Dataset(dataset)[(0,) * len(stored_shape)] = 0
        offset = dataset.get_offset()
        dataset.close()
        fid.close()
        header = file.read(offset)
    return TensorFile(header, offset)


def stored_offset(image: bytes) -> int | None:
    """Where the bytes of ``/data`` begin in a tensor file, or None when they cannot be mapped from it."""
    import io

    import h5py

    with h5py.File(io.BytesIO(image), "r") as file:
        return _offset(file[DATASET])


def write_view(source: Source, files: Mapping[str, str]) -> bytes:
    """The HDF5 view: groups, attributes and small tensors, and an external link for each tensor in ``files``
    (tensor name to path relative to ``weights/``). Equal input gives equal bytes. Raises InvalidModel."""
    import h5py

    kept: dict[str, Any] = {}
    with _memory_file() as view:
        if source.groups is not None:
            with naming_damage(source.groups.filename):
                kept = dict(walk(source.groups))
                _copy_groups(source.groups, kept, view, files)
        own = {tensor.name: tensor for tensor in source.tensors if not _is_numeric(kept.get(tensor.name))}
        groups = {name for name, item in kept.items() if isinstance(item, h5py.Group)}
        named = dataset_names(own, kept.keys() - groups, groups)
        for name in sorted(own):
            group, _, last = named[name].rpartition("/")
            parent = _require_group(view, group)
            if name in files:
                parent[last] = h5py.ExternalLink(files[name], f"/{DATASET}")
            else:
                _write_small(parent, last, own[name])
        return _image_of(view)


def dataset_names(
    names: Iterable[str], datasets: Set[str] = frozenset(), groups: Set[str] = frozenset()
) -> dict[str, str]:
    """The path of each tensor in a view that has ``datasets`` and ``groups`` already: its own name, or that escaped
    where it is no path or a place is taken."""
    ordered = sorted(names)
    used, leaves = {*datasets, *groups}, {*datasets, *ordered}
    out = {name: name for name in ordered if _is_path(name) and name not in used and leaves.isdisjoint(_parents(name))}
    used.update(out, *map(_parents, out))
    for name in ordered:
        if name not in out:
            escaped = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
            while escaped in ("", ".", *used):
                escaped += "%"
            out[name] = escaped
            used.add(escaped)
    return out


def _is_path(name: str) -> bool:
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _is_numeric(item: Any) -> bool:
    """Whether this is a dataset of numbers; strings and the like travel inside the view, as they are."""
    import h5py

    return isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind in _NUMERIC_KINDS


def _tensor(name: str, dataset: Any, data: memoryview) -> TensorData:
    where = f"{dataset.file.filename}: '{name}'"
    dtype, shape = _declared(dataset, where)
    size, offset = nbytes(dtype, shape), _offset(dataset)
    body = _values(dataset) if offset is None else data[offset : offset + size]
    own = () if is_native(dtype) else (DTYPE_ATTRIBUTE, SHAPE_ATTRIBUTE)
    kept_as_is = size >= TENSOR_FILE_BYTES and (offset is None or set(dataset.attrs).difference(own))
    return TensorData(name, dtype, shape, body, _image(dataset) if kept_as_is else None)


def _values(dataset: Any) -> memoryview:
    import numpy as np

    return memoryview(np.asarray(dataset[()], dataset.dtype.newbyteorder("<")).tobytes())


def _declared(dataset: Any, where: str) -> tuple[str, tuple[int, ...]]:
    """The tensor's dtype and shape: the dataset's own, or those its attributes name. Raises InvalidModel."""
    dtype, shape = dataset.dtype.name, tuple(dataset.shape)
    marked = dataset.attrs.get(DTYPE_ATTRIBUTE)
    if isinstance(marked, str) and not is_native(marked):
        dtype, shape = marked, tuple(map(int, dataset.attrs.get(SHAPE_ATTRIBUTE, shape)))
        if min(shape, default=0) < 0 or storage(dtype, shape) != (dataset.dtype.newbyteorder("<"), dataset.shape):
            raise InvalidModel(
                f"{where} is marked {dtype}{list(shape)} but holds {dataset.dtype}{list(dataset.shape)}",
                hint="save it again",
            )
    if dtype not in DTYPES:
        raise InvalidModel(f"{where} has the type {dtype}", hint="save it as one of float16, float32 or float64")
    return dtype, shape


def _offset(dataset: Any) -> int | None:
    """Where the dataset's bytes begin in its file, or None when they are no tensor's: chunked, or laid out otherwise
    than numpy's little-endian type."""
    import h5py

    plain = h5py.h5t.py_create(dataset.dtype.newbyteorder("<"), logical=True).equal(dataset.id.get_type())
    offset = dataset.id.get_offset()
    return int(offset) if plain and offset is not None else None


def _image(dataset: Any) -> bytes:
    """A tensor file holding a copy of the dataset as it is: attributes, chunks, compression."""
    import h5py

    with _memory_file() as file:
        h5py.h5o.copy(dataset.id, b".", file.id, DATASET.encode())
        return _image_of(file)


def _copy_groups(source: Any, kept: Mapping[str, Any], view: Any, files: Mapping[str, str]) -> None:
    """Groups, their attributes, small datasets and links to large ones, in name order."""
    import h5py

    _copy_attributes(source, view)
    for name, item in sorted(kept.items()):
        if isinstance(item, h5py.Group):
            _copy_attributes(item, _require_group(view, name))
            continue
        group, _, last = name.rpartition("/")
        parent = _require_group(view, group)
        if name in files:
            parent[last] = h5py.ExternalLink(files[name], f"/{DATASET}")
        else:
            h5py.h5o.copy(item.id, b".", parent.id, last.encode())


def _copy_attributes(source: Any, target: Any) -> None:
    import h5py
    import numpy as np

    for name in sorted(source.attrs):
        old = source.attrs.get_id(name)
        kind = h5py.h5t.py_create(old.dtype, logical=True)
        new = h5py.h5a.create(target.id, name.encode(), kind, old.get_space())
        if old.get_space().get_simple_extent_type() != h5py.h5s.NULL:
            values, in_memory = np.empty(old.shape, old.dtype), h5py.h5t.py_create(old.dtype)
            old.read(values, mtype=in_memory)
            new.write(values, mtype=in_memory)


def _require_group(view: Any, name: str) -> Any:
    import h5py

    group = view
    for part in filter(None, name.split("/")):
        if part not in group:
            gcpl = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
            gcpl.set_obj_track_times(False)
            h5py.h5g.create(group.id, part.encode(), gcpl=gcpl)
        group = group[part]
    return group


def _write_small(group: Any, name: str, tensor: TensorData) -> None:
    import h5py
    import numpy as np

    if tensor.dtype == "string":
        texts = bytes(tensor.data).split(b"\0") if math.prod(tensor.shape) else []
        values = np.array(texts, dtype=object).reshape(tensor.shape)
        group.create_dataset(name, data=values, dtype=h5py.string_dtype(), track_times=False)
        return
    numpy_dtype, shape = storage(tensor.dtype, tensor.shape)
    values = np.frombuffer(tensor.data, dtype=numpy_dtype).reshape(shape)
    dataset = group.create_dataset(name, data=values, track_times=False)
    if not is_native(tensor.dtype):
        _mark(dataset, tensor.dtype, tensor.shape)


def _mark(dataset: Any, dtype: str, shape: tuple[int, ...]) -> None:
    import numpy as np

    dataset.attrs[DTYPE_ATTRIBUTE] = dtype
    dataset.attrs[SHAPE_ATTRIBUTE] = np.array(shape, dtype="<i8")


@contextlib.contextmanager
def _memory_file() -> Iterator[Any]:
    import uuid

    import h5py

    fapl = _file_access()
    fapl.set_fapl_core(backing_store=False)
    # HDF5 tells open files apart by name, even those that are on no disk.
    name = uuid.uuid4().hex.encode()
    with h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fcpl=_file_creation(), fapl=fapl)) as file:
        yield file


def _image_of(file: Any) -> bytes:
    file.flush()
    image: bytes = file.id.get_file_image()
    return image


def _file_access() -> Any:
    import h5py

    fapl = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    # The lower bound is what is written; the upper one lets a copy of what a newer library wrote stay as it is.
    fapl.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_LATEST)
    return fapl


def _file_creation() -> Any:
    import h5py

    fcpl = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    with contextlib.suppress(AttributeError):
        fcpl.set_obj_track_times(False)
    return fcpl
