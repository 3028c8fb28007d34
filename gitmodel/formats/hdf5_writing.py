"""How HDF5 is written here: with a pinned library version and without times, so that equal content gives equal bytes;
groups, attributes and small datasets."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gitmodel.formats.dtypes import is_native, storage
from gitmodel.formats.source import TensorData

DATASET = "data"
#: Marks a dataset whose values are of a type HDF5 lacks, kept as integers of the same width.
DTYPE_ATTRIBUTE, SHAPE_ATTRIBUTE = "dtype", "shape"


def copy_groups(source: Any, kept: Mapping[str, Any], target: Any, put: Callable[[str, Any, Any, str], None]) -> None:
    """Makes the groups among ``kept`` anew, with their attributes and the order in which they were filled, and has
    ``put(path, item, group, name)`` do the same for all else."""
    import h5py

    copy_attributes(source, target)
    for path, item in kept.items():
        group, _, name = path.rpartition("/")
        parent = require_group(target, group)
        if isinstance(item, h5py.Group):
            gcpl = _group_creation()
            _keep_orders(item.id.get_create_plist(), gcpl)
            copy_attributes(item, h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=gcpl)))
        else:
            put(path, item, parent, name)


def copy_object(item: Any, group: Any, name: str) -> None:
    """A dataset or named type as it is: attributes, chunks, compression."""
    import h5py

    h5py.h5o.copy(item.id, b".", group.id, name.encode())


def copy_attributes(source: Any, target: Any) -> None:
    import h5py
    import numpy as np

    for name in source.attrs:
        old = source.attrs.get_id(name)
        new = h5py.h5a.create(target.id, name.encode(), old.get_type().copy(), old.get_space())
        if old.get_space().get_simple_extent_type() != h5py.h5s.NULL:
            values, in_memory = np.empty(old.shape, old.dtype), h5py.h5t.py_create(old.dtype)
            old.read(values, mtype=in_memory)
            new.write(values, mtype=in_memory)


def require_group(view: Any, name: str) -> Any:
    import h5py

    group = view
    for part in filter(None, name.split("/")):
        if part not in group:
            h5py.h5g.create(group.id, part.encode(), gcpl=_group_creation())
        group = group[part]
    return group


def _group_creation() -> Any:
    import h5py

    gcpl = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    gcpl.set_obj_track_times(False)
    return gcpl


def _keep_orders(old: Any, new: Any) -> None:
    new.set_link_creation_order(old.get_link_creation_order())
    new.set_attr_creation_order(old.get_attr_creation_order())


def write_dataset(group: Any, name: str, tensor: TensorData) -> int | None:
    """Returns where in the file the values begin; None for texts and for none."""
    import h5py
    import numpy as np

    if tensor.dtype == "string":
        texts = bytes(tensor.data).split(b"\0") if math.prod(tensor.shape) else []
        values = np.array(texts, dtype=object).reshape(tensor.shape)
        group.create_dataset(name, data=values, dtype=h5py.string_dtype(), track_times=False)
        return None
    numpy_dtype, shape = storage(tensor.dtype, tensor.shape)
    values = np.frombuffer(tensor.data, dtype=numpy_dtype).reshape(shape)
    # What create_dataset does, in half the time; a model may have thousands.
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_obj_track_times(False)
    kind = h5py.h5t.py_create(values.dtype, logical=True)
    dataset = h5py.h5d.create(group.id, name.encode(), kind, space, dcpl=dcpl)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    if not is_native(tensor.dtype):
        mark(h5py.Dataset(dataset), tensor.dtype, tensor.shape)
    offset: int | None = dataset.get_offset()
    return offset


def mark(dataset: Any, dtype: str, shape: tuple[int, ...]) -> None:
    import numpy as np

    dataset.attrs[DTYPE_ATTRIBUTE] = dtype
    dataset.attrs[SHAPE_ATTRIBUTE] = np.array(shape, dtype="<i8")


#: From so many bytes on, what is written to an aligned file begins at a multiple of this.
_ALIGNED = (512, 64)


@contextlib.contextmanager
def memory_file(like: Any = None, *, aligned: bool = False) -> Iterator[Any]:
    """A file in memory, filled in the order of ``like``, if that is a file which keeps one; ``aligned`` for whoever reads
    values right from its bytes."""
    import uuid

    import h5py

    fapl = file_access()
    fapl.set_fapl_core(backing_store=False)
    if aligned:
        fapl.set_alignment(*_ALIGNED)
    # HDF5 tells open files apart by name, even those that are on no disk.
    name = uuid.uuid4().hex.encode()
    with h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fcpl=file_creation(like), fapl=fapl)) as file:
        yield file


def image_of(file: Any) -> bytes:
    file.flush()
    image: bytes = file.id.get_file_image()
    return image


def file_access() -> Any:
    import h5py

    fapl = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    # The lower bound is what is written; the upper one lets a copy of what a newer library wrote stay as it is.
    fapl.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_LATEST)
    return fapl


def file_creation(like: Any = None) -> Any:
    import h5py

    fcpl = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    with contextlib.suppress(AttributeError):
        fcpl.set_obj_track_times(False)
    if like is not None:
        _keep_orders(like["/"].id.get_create_plist(), fcpl)
    return fcpl
