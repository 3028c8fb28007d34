"""HDF5: reads checkpoints with their tensors mapped, writes tensor files and the HDF5 view. The one importer of h5py.

Files are written with a pinned library version and no times, so that equal tensors give equal bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gitmodel.formats.dtypes import is_native, nbytes, storage
from gitmodel.formats.source import TENSOR_FILE_BYTES, InvalidModel, Source, TensorData, map_file

DATASET = "data"
#: Marks a dataset whose values are of a type HDF5 lacks, kept as integers of the same width.
DTYPE_ATTRIBUTE, SHAPE_ATTRIBUTE = "dtype", "shape"
_GZIP, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_ALLOWED_FILTERS = {_GZIP, _SHUFFLE, _FLETCHER32}
_NUMERIC_KINDS = "biufc"
MAX_DATASETS = 100_000
MAX_LOGICAL_BYTES = 1 << 40


@dataclass(frozen=True)
class TensorFile:
    """The bytes around a tensor's own in its file: ``header`` before them, nothing after; ``offset`` is their place."""

    header: bytes
    offset: int


def read(path: Path) -> Source:
    """Reads a checkpoint. Raises InvalidModel for a file that is none, or holds what an untrusted one must not."""
    data = map_file(path)
    file = _open(path)
    tensors = []
    for name, dataset in _datasets(file, str(path)):
        if dataset.dtype.kind not in _NUMERIC_KINDS:
            continue  # strings and the like travel inside the view
        tensors.append(_tensor(name, dataset, data))
    framework = (
        "keras" if "keras_version" in file.attrs or "layer_names" in file.get("model_weights", file).attrs else ""
    )
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
        dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        dcpl.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        dcpl.set_obj_track_times(False)
        space = h5py.h5s.create_simple(stored_shape)
        dataset = h5py.h5d.create(
            fid, DATASET.encode(), h5py.h5t.py_create(numpy_dtype, logical=True), space, dcpl=dcpl
        )
        if not is_native(dtype):
            _mark(h5py.Dataset(dataset), dtype, shape)
        offset = dataset.get_offset()
        dataset.close()
        fid.close()
        header = file.read(offset)
    return TensorFile(header, offset)


def stored_offset(image: bytes) -> int | None:
    """Where the bytes of ``/data`` begin in a tensor file, or None when they are chunked."""
    import io

    import h5py

    with h5py.File(io.BytesIO(image), "r") as file:
        return _offset(file[DATASET])


def write_view(source: Source, files: Mapping[str, str]) -> bytes:
    """The HDF5 view: groups, attributes and small tensors, and an external link for each tensor in ``files``
    (tensor name to path relative to ``weights/``). Equal input gives equal bytes."""
    import h5py

    fapl = _file_access()
    fapl.set_fapl_core(backing_store=False)
    fid = h5py.h5f.create(b"view.h5", h5py.h5f.ACC_TRUNC, fcpl=_file_creation(), fapl=fapl)
    view = h5py.File(fid)
    if source.groups is not None:
        _copy_groups(source.groups, view, files)
    named = dataset_names([t.name for t in source.tensors])
    for tensor in sorted(source.tensors, key=lambda t: t.name):
        target = named[tensor.name]
        if target in view or (source.groups is not None and tensor.name in source.groups):
            continue
        parent = _require_group(view, target.rpartition("/")[0])
        if tensor.name in files:
            parent[target.rpartition("/")[2]] = h5py.ExternalLink(files[tensor.name], f"/{DATASET}")
        else:
            _write_small(parent, target.rpartition("/")[2], tensor)
    view.flush()
    image: bytes = fid.get_file_image()
    view.close()
    return image


def dataset_names(names: Sequence[str]) -> dict[str, str]:
    """The path of each tensor in the HDF5 view: its own name, unless that is no path or is another's group."""
    taken = set(names)
    groups = {"/".join(parts[:i]) for name in names if (parts := name.split("/")) for i in range(1, len(parts))}
    out = {}
    for name in names:
        parts = name.split("/")
        plain = name.isprintable() and all(part not in ("", ".", "..") for part in parts) and name not in groups
        plain = plain and not any("/".join(parts[:i]) in taken for i in range(1, len(parts)))
        out[name] = name if plain else name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00") or "%"
    return out


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InvalidModel(
            f"{path} is not a whole HDF5 file ({_reason(error)})", hint="save or copy it again"
        ) from None


def _reason(error: OSError) -> str:
    text = str(error)
    return text[text.find("(") + 1 :].rstrip(")") if "(" in text else text


def _datasets(file: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every dataset by path, reached over hard links alone. Raises InvalidModel for anything that points elsewhere."""
    import h5py

    seen = total = 0
    todo = [("", file)]
    visited = set()
    while todo:
        prefix, group = todo.pop()
        key = h5py.h5o.get_info(group.id).addr
        if key in visited:
            continue
        visited.add(key)
        for name in sorted(group):
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise InvalidModel(f"{where}: '{prefix}{name}' links elsewhere", hint="save it with the data inside")
            item = group[name]
            if isinstance(item, h5py.Group):
                todo.append((f"{prefix}{name}/", item))
                continue
            if not isinstance(item, h5py.Dataset):
                continue
            _check_dataset(item, f"{where}: '{prefix}{name}'")
            seen, total = seen + 1, total + item.size * item.dtype.itemsize
            if seen > MAX_DATASETS or total > MAX_LOGICAL_BYTES:
                raise InvalidModel(f"{where} claims {total} bytes in {seen} datasets", hint="this is no model file")
            yield f"{prefix}{name}", item


def _check_dataset(dataset: Any, where: str) -> None:
    plist = dataset.id.get_create_plist()
    if dataset.is_virtual or plist.get_external_count():
        raise InvalidModel(f"{where} keeps its data in another file", hint="save it with the data inside")
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - _ALLOWED_FILTERS:
        raise InvalidModel(f"{where} uses an unknown filter", hint="save it with gzip or none")
    if (
        dataset.shape is not None
        and dataset.id.get_storage_size() * 2000 + (1 << 20) < dataset.size * dataset.dtype.itemsize
    ):
        raise InvalidModel(
            f"{where} claims {dataset.size * dataset.dtype.itemsize} bytes but stores almost none",
            hint="this is no model file",
        )


def _tensor(name: str, dataset: Any, data: memoryview) -> TensorData:
    import numpy as np

    dtype, shape = dataset.dtype.name, tuple(dataset.shape or ())
    stored = dataset.attrs.get(DTYPE_ATTRIBUTE)
    if isinstance(stored, str) and not is_native(stored):
        dtype, shape = stored, tuple(int(n) for n in dataset.attrs[SHAPE_ATTRIBUTE])
    size, offset = nbytes(dtype, shape), _offset(dataset)
    little = dataset.dtype.byteorder != ">"
    plain = offset is not None and little
    if plain and offset is not None and offset + size <= len(data):
        body = data[offset : offset + size]
    else:
        values = np.asarray(dataset[()])
        body = memoryview(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes())
    kept_as_is = size >= TENSOR_FILE_BYTES and (not plain or (len(dataset.attrs) > 0 and is_native(dtype)))
    return TensorData(name, dtype, shape, body, _image(dataset) if kept_as_is else None)


def _offset(dataset: Any) -> int | None:
    offset = dataset.id.get_offset()
    return None if offset is None else int(offset)


def _image(dataset: Any) -> bytes:
    """A tensor file holding a copy of the dataset as it is: attributes, chunks, compression."""
    import h5py

    fapl = _file_access()
    fapl.set_fapl_core(backing_store=False)
    fid = h5py.h5f.create(b"tensor.h5", h5py.h5f.ACC_TRUNC, fcpl=_file_creation(), fapl=fapl)
    h5py.h5o.copy(dataset.id, b".", fid, DATASET.encode())
    fid.flush()
    image: bytes = fid.get_file_image()
    fid.close()
    return image


def _copy_groups(source: Any, view: Any, files: Mapping[str, str]) -> None:
    """Groups, their attributes, small datasets and links to large ones, in name order."""
    import h5py

    _copy_attributes(source, view)
    for name, item in sorted(_walk_groups(source)):
        if isinstance(item, h5py.Group):
            _copy_attributes(item, _require_group(view, name))
            continue
        parent = _require_group(view, name.rpartition("/")[0])
        if name in files:
            parent[name.rpartition("/")[2]] = h5py.ExternalLink(files[name], f"/{DATASET}")
        else:
            h5py.h5o.copy(item.id, b".", parent.id, name.rpartition("/")[2].encode())


def _walk_groups(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    import h5py

    for name in group:
        item = group[name]
        yield prefix + name, item
        if isinstance(item, h5py.Group):
            yield from _walk_groups(item, f"{prefix}{name}/")


def _copy_attributes(source: Any, target: Any) -> None:
    for name in sorted(source.attrs):
        attribute = source.attrs.get_id(name)
        target.attrs.create(name, source.attrs[name], dtype=attribute.dtype)


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
        values = (
            np.array(bytes(tensor.data).split(b"\0"), dtype=object) if len(tensor.data) else np.array([], dtype=object)
        )
        group.create_dataset(name, data=values.reshape(tensor.shape), dtype=h5py.string_dtype(), track_times=False)
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


def _file_access() -> Any:
    import h5py

    fapl = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    fapl.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    return fapl


def _file_creation() -> Any:
    import h5py

    fcpl = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    with contextlib.suppress(AttributeError):
        fcpl.set_obj_track_times(False)
    return fcpl
