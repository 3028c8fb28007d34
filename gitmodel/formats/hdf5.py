"""HDF5: reads checkpoints with their tensors mapped, writes tensor files and the HDF5 view.

Files are written with a pinned library version and no times, so that equal tensors give equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from gitmodel.bundle.lock import is_shared
from gitmodel.bundle.signature import DTYPES
from gitmodel.files import StorageFailed
from gitmodel.formats.declared import dump_json, load_json, texts
from gitmodel.formats.dtypes import is_native, nbytes, storage
from gitmodel.formats.hdf5_unpack import Image, shelved, unpack, write_copy
from gitmodel.formats.hdf5_walk import naming_damage, open_file, walk
from gitmodel.formats.hdf5_writing import (
    DATASET,
    DTYPE_ATTRIBUTE,
    SHAPE_ATTRIBUTE,
    copy_groups,
    copy_object,
    file_access,
    file_creation,
    image_of,
    mark,
    memory_file,
    require_group,
    write_dataset,
)
from gitmodel.formats.mapping import let_go
from gitmodel.formats.source import (
    TENSOR_FILE_BYTES,
    InvalidModel,
    Source,
    TensorData,
    first_line,
    map_file,
    rooms,
)

#: An attribute of the whole view: the metadata of a safetensors file, in JSON.
METADATA_ATTRIBUTE = "safetensors_metadata"
_NUMERIC_KINDS = "biufc"
_BLOCK = 16 << 20


class TensorFile(Struct, frozen=True):
    """The bytes around a tensor's own in its file: ``header`` before them, nothing after; ``offset`` is their place."""

    header: bytes
    offset: int


def read(path: Path) -> Source:
    """Reads a checkpoint. Raises InvalidModel for a file that is none, or holds what an untrusted one must not."""
    data = map_file(path)
    with naming_damage(str(path)), contextlib.ExitStack() as refused:
        file = refused.enter_context(open_file(path))
        tensors = _tensors({name: item for name, item in walk(file) if is_numeric(item)}, data, str(path))
        framework, metadata = framework_of(file), metadata_of(file)
        refused.pop_all()  # the view is written from it
    return Source("hdf5", framework, tuple(tensors), groups=file, metadata=metadata, files=(path,))


def framework_of(file: Any) -> str:
    """Who wrote the checkpoint, for the card; '' where nothing tells."""
    import h5py

    own = isinstance(file.get("model_weights", getlink=True), h5py.HardLink)
    inner = file["model_weights"] if own else file
    return "keras" if "keras_version" in file.attrs or "layer_names" in inner.attrs else ""


#: More than HDF5 writes around a tensor: it fills a buffer of 64 KiB.
_ROOM = 128 << 10


@lru_cache(maxsize=256)
def tensor_file(dtype: str, shape: tuple[int, ...]) -> TensorFile:
    """The header of a tensor file for one contiguous dataset ``/data`` of this type and shape. Raises StorageFailed."""
    import tempfile

    # HDF5 reserves the space without writing it, so this costs nothing however large the tensor is.
    try:
        with tempfile.NamedTemporaryFile(suffix=".h5") as file:
            # What the disk or a limit refuses is refused here: when HDF5 itself meets it, it brings the process down at
            # its end, over the file that it could not close.
            os.posix_fallocate(file.fileno(), 0, _ROOM)
            os.truncate(file.fileno(), _ROOM + nbytes(dtype, shape))
            offset = _write_empty(file.name, dtype, shape)
            return TensorFile(file.read(offset), offset)
    except (OSError, RuntimeError) as error:
        raise StorageFailed(
            f"cannot write to {tempfile.gettempdir()} ({getattr(error, 'strerror', None) or first_line(error)})",
            hint="make room there, or set TMPDIR to a folder that has it",
        ) from None


def _write_empty(path: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Makes the file of a tensor without its bytes; returns where they belong."""
    import h5py

    numpy_dtype, stored_shape = storage(dtype, shape)
    fid = h5py.h5f.create(path.encode(), h5py.h5f.ACC_TRUNC, fcpl=file_creation(), fapl=file_access())
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_layout(h5py.h5d.CONTIGUOUS)
    dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    dcpl.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dcpl.set_obj_track_times(False)
    space = h5py.h5s.create_simple(stored_shape)
    dataset = h5py.h5d.create(fid, DATASET.encode(), h5py.h5t.py_create(numpy_dtype, logical=True), space, dcpl=dcpl)
    if not is_native(dtype):
        mark(h5py.Dataset(dataset), dtype, shape)
    # The first write takes the space, behind all else: the text of a mark stands outside the dataset's header.
    h5py.Dataset(dataset)[(0,) * len(stored_shape)] = 0
    offset = int(dataset.get_offset())
    dataset.close()
    fid.close()
    return offset


def digest(tensor: TensorData) -> str:
    """The sha256 that names a tensor's type, shape and values: of the file it has, or would have, to itself. A tensor too
    small for one, or of texts, goes by its bytes alone."""
    if tensor.dtype == "string" or len(tensor.data) < TENSOR_FILE_BYTES:
        return hashlib.sha256(tensor.data).hexdigest()
    hashed = hashlib.sha256(tensor_file(tensor.dtype, tensor.shape).header)
    for start in range(0, len(tensor.data), _BLOCK):
        block = tensor.data[start : start + _BLOCK]
        hashed.update(block)
        let_go(block)
    return hashed.hexdigest()


def stored_offset(image: bytes | memoryview) -> int | None:
    """Where the bytes of ``/data`` begin in a tensor file, or None when they cannot be mapped from it."""
    import h5py

    with h5py.File(Image(image), "r") as file:
        return contiguous_offset(file[DATASET])


class View(Struct, frozen=True):
    """The bytes of an HDF5 view, and where in them the tensors begin that can be read right from there."""

    image: bytes
    offsets: Mapping[str, int]


def write_view(source: Source, files: Mapping[str, str]) -> View:
    """The HDF5 view: groups, attributes and small tensors, and an external link for each tensor in ``files``
    (tensor name to path relative to ``weights/``). Equal input gives equal bytes. Raises InvalidModel."""
    import h5py

    def put(path: str, item: Any, group: Any, name: str) -> None:
        if path in files:
            group[name] = h5py.ExternalLink(files[path], f"/{DATASET}")
        else:
            copy_object(item, group, name)

    kept: dict[str, Any] = {}
    with memory_file(source.groups, aligned=True) as view:  # graphs read small tensors right from it
        if source.groups is not None:
            with naming_damage(source.groups.filename):
                kept = dict(walk(source.groups))
                copy_groups(source.groups, kept, view, put)
        own = {tensor.name: tensor for tensor in source.tensors if not is_numeric(kept.get(tensor.name))}
        groups = {name for name, item in kept.items() if isinstance(item, h5py.Group)}
        named = dataset_names(own, kept.keys() - groups, groups)
        offsets: dict[str, int | None] = {}
        for name in sorted(own):
            group, _, last = named[name].rpartition("/")
            parent = require_group(view, group)
            if name in files:
                parent[last] = h5py.ExternalLink(files[name], f"/{DATASET}")
            else:
                offsets[name] = write_dataset(parent, last, own[name])
        write_metadata(view, source.metadata)
        view.flush()
        shared = [t.name for t in source.tensors if t.name not in files and is_shared(t.dtype, t.shape)]
        offsets |= {name: contiguous_offset(view[name]) for name in shared if name not in own}
        places = ((name, offsets[name]) for name in shared)
        return View(image_of(view), {name: offset for name, offset in places if offset is not None})


def write_metadata(view: Any, metadata: Mapping[str, str]) -> None:
    """Keeps what safetensors said of itself, where the view does not have it from its groups."""
    if metadata and METADATA_ATTRIBUTE not in view.attrs:
        view.attrs[METADATA_ATTRIBUTE] = dump_json(dict(metadata))


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
            escaped = escape(name)
            while escaped in ("", ".", *used):
                escaped += "%"
            out[name] = escaped
            used.add(escaped)
    return out


def escape(name: str) -> str:
    """A name that is no path as one link of HDF5; where that is taken, as many ``%`` follow as it needs."""
    return name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")


def _is_path(name: str) -> bool:
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def is_numeric(item: Any) -> bool:
    """Whether this is a dataset of numbers; strings and the like travel inside the view, as they are."""
    import h5py

    return isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind in _NUMERIC_KINDS


def _tensors(datasets: Mapping[str, Any], data: memoryview, where: str) -> list[TensorData]:
    """A tensor of each dataset: mapped from the file, or unpacked to disk where it is large."""
    kinds = {name: declared(dataset, f"{where}: '{name}'") for name, dataset in datasets.items()}
    sizes = {name: nbytes(*kind) for name, kind in kinds.items()}
    offsets = {name: contiguous_offset(dataset) for name, dataset in datasets.items()}
    large = [name for name, size in sizes.items() if size >= TENSOR_FILE_BYTES]
    packed = [name for name in large if offsets[name] is None]
    unpacked = dict(zip(packed, rooms([sizes[name] for name in packed]), strict=True))
    for name, room in unpacked.items():
        unpack(datasets[name], room)
    kept = [name for name in large if name in unpacked or not is_plain(datasets[name], kinds[name][0])]
    stored = dict(zip(kept, shelved(partial(write_copy, datasets[name], DATASET) for name in kept), strict=True))
    tensors = []
    for name, (dtype, shape) in kinds.items():
        if (offset := offsets[name]) is None:
            body = unpacked[name].toreadonly() if name in unpacked else values(datasets[name])
        else:
            body = data[offset : offset + sizes[name]]
        tensors.append(TensorData(name, dtype, shape, body, stored.get(name)))
    return tensors


def is_plain(dataset: Any, dtype: str) -> bool:
    """Whether type, shape and values are all there is of the dataset: no attribute and no fill value of the user's."""
    import h5py

    marks = () if is_native(dtype) else (DTYPE_ATTRIBUTE, SHAPE_ATTRIBUTE)
    filled = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    return not filled and set(dataset.attrs).issubset(marks)


def values(dataset: Any) -> memoryview:
    """The bytes of a small dataset, little-endian and row-major."""
    import numpy as np

    return memoryview(np.asarray(dataset[()], dataset.dtype.newbyteorder("<")).tobytes())


def metadata_of(file: Any) -> dict[str, str]:
    """What safetensors said of itself and the view has kept."""
    kept = file.attrs.get(METADATA_ATTRIBUTE)
    try:
        return texts(load_json(kept)) if isinstance(kept, str) else {}
    except ValueError:  # somebody else's attribute
        return {}


def declared(dataset: Any, where: str) -> tuple[str, tuple[int, ...]]:
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


def contiguous_offset(dataset: Any) -> int | None:
    """Where the dataset's bytes begin in its file, or None when they are no tensor's: chunked, or laid out otherwise
    than numpy's little-endian type."""
    import h5py

    plain = h5py.h5t.py_create(dataset.dtype.newbyteorder("<"), logical=True).equal(dataset.id.get_type())
    offset = dataset.id.get_offset()
    return int(offset) if plain and offset is not None else None
