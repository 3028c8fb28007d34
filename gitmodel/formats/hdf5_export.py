"""Writes a model as one HDF5 file that needs no other: groups and attributes as they were, every dataset in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gitmodel.formats import hdf5, hdf5_writing
from gitmodel.formats.dtypes import is_native, storage
from gitmodel.formats.hdf5_unpack import Image
from gitmodel.formats.hdf5_walk import naming_damage, walk
from gitmodel.formats.output import pour, replacing
from gitmodel.formats.source import TENSOR_FILE_BYTES, Source, TensorData
from gitmodel.formats.stored import Stored, dataset_in


def write(source: Source, path: Path) -> tuple[Path, ...]:
    """Writes ``path``. Datasets of an HDF5 source are copied as they are: type, chunks, filters, attributes; tensors of
    another one become contiguous datasets of their names (``hdf5.dataset_names``), marked where HDF5 lacks the type.
    A graph has no place in it. Raises InvalidModel, StorageFailed."""
    with replacing(path) as file:
        with _created(file, source.groups) as target:
            kept = {} if source.groups is None else _copy_groups(source, target)
            # Of a stored source the view has every tensor.
            others = () if isinstance(source, Stored) else source.tensors
            own = [tensor for tensor in others if not hdf5.is_numeric(kept.get(tensor.name))]
            reserved = _write_own(own, kept, target)
            hdf5.write_metadata(target, source.metadata)
        for offset, data in reserved:
            file.seek(offset)
            pour(file, data)
    return (path,)


@contextlib.contextmanager
def _created(file: IO[bytes], like: Any) -> Iterator[Any]:
    """An HDF5 file inside the open, empty one."""
    import h5py

    fapl = hdf5_writing.file_access()
    fapl.set_fileobj_driver(h5py.h5fd.fileobj_driver, file)
    with h5py.File(
        h5py.h5f.create(b"export", h5py.h5f.ACC_TRUNC, fcpl=hdf5_writing.file_creation(like), fapl=fapl)
    ) as target:
        yield target


def _copy_groups(source: Source, target: Any) -> dict[str, Any]:
    """Copies what the source has of HDF5, links to tensor files replaced by the tensors; returns the items by path."""

    def put(_: str, item: Any, group: Any, name: str) -> None:
        if isinstance(source, Stored) and (file := getattr(item, "filename", "")):
            source.seals[file].check()  # HDF5 itself copies it
            with dataset_in(source.folder / file) as dataset:
                hdf5_writing.copy_object(dataset, group, name)
        else:
            hdf5_writing.copy_object(item, group, name)

    with naming_damage(source.groups.filename):
        kept = dict(walk(source.groups, source.linked if isinstance(source, Stored) else ()))
        hdf5_writing.copy_groups(source.groups, kept, target, put)
    return kept


def _write_own(tensors: list[TensorData], kept: dict[str, Any], target: Any) -> list[tuple[int, memoryview]]:
    """Makes the datasets of tensors that are in no group of the source; returns where the bytes of the large ones go,
    once HDF5 is through with the file."""
    import h5py

    groups = {name for name, item in kept.items() if isinstance(item, h5py.Group)}
    paths = hdf5.dataset_names([tensor.name for tensor in tensors], kept.keys() - groups, groups)
    reserved = []
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        group, _, last = paths[tensor.name].rpartition("/")
        parent = hdf5_writing.require_group(target, group)
        if tensor.stored is not None:
            with h5py.File(Image(tensor.stored), "r", rdcc_nbytes=0) as image:
                hdf5_writing.copy_object(image[hdf5_writing.DATASET], parent, last)
        elif tensor.dtype == "string" or len(tensor.data) < TENSOR_FILE_BYTES:
            hdf5_writing.write_dataset(parent, last, tensor)
        else:
            reserved.append((_reserve(parent, last, tensor), tensor.data))
    return reserved


def _reserve(group: Any, name: str, tensor: TensorData) -> int:
    """Makes a contiguous dataset without writing its bytes; returns where they begin."""
    import h5py

    dtype, shape = storage(tensor.dtype, tensor.shape)
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_layout(h5py.h5d.CONTIGUOUS)
    dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    dcpl.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dcpl.set_obj_track_times(False)
    kind, space = h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple(shape)
    dataset = h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, dcpl=dcpl))
    if not is_native(tensor.dtype):
        hdf5_writing.mark(dataset, tensor.dtype, tensor.shape)
    return int(dataset.id.get_offset())
