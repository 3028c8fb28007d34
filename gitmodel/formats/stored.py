"""Reads a bundle's weights folder back as a source: the graph, the HDF5 view, and every tensor of the lock, mapped from
the file it stands in. Nothing but the lock's own files is opened; that their bytes are the right ones is for the caller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gitmodel.bundle.bundle import HDF5_VIEW
from gitmodel.bundle.lock import Lock, TensorEntry
from gitmodel.bundle.signature import DEFAULT
from gitmodel.formats import hdf5, hdf5_writing, stored_graphs
from gitmodel.formats.dtypes import nbytes
from gitmodel.formats.hdf5_unpack import unpack
from gitmodel.formats.hdf5_walk import check_dataset, naming_damage, open_file
from gitmodel.formats.source import InvalidModel, NamedGraph, Seal, Source, TensorData, map_file, scratch
from gitmodel.formats.stored_graphs import MEND

_ALIGNMENT = 64


@dataclass(frozen=True, eq=False)
class Stored(Source):
    """``groups`` is the HDF5 view of all tensors; its links lead to ``linked``, files below ``folder``. ``seals`` says what
    each file must be, for whoever copies it."""

    folder: Path = Path()
    linked: frozenset[str] = frozenset()
    seals: Mapping[str, Seal] = field(default_factory=dict)


class _Room:
    """Where packed tensors of one model are decoded to: one piece of scratch, made when the first is asked for."""

    def __init__(self) -> None:
        self._size = 0

    def reserve(self, size: int) -> int:
        start = self._size
        self._size += size + -size % _ALIGNMENT
        return start

    @cached_property
    def memory(self) -> memoryview:
        """No more can be reserved afterwards."""
        return scratch(self._size)


class _Packed(TensorData):
    """A tensor that its file keeps in chunks, compressed or in another byte order: decoded when its data are asked for."""

    def __init__(self, entry: TensorEntry, path: Path, room: _Room, seal: Seal | None) -> None:
        vars(self).update(name=entry.name, dtype=entry.dtype, shape=entry.shape, stored=map_file(path))
        self._path, self._room, self._sealed = path, room, seal
        self._size = nbytes(entry.dtype, entry.shape)
        self._start = room.reserve(self._size)

    @cached_property
    def data(self) -> memoryview:
        if self._sealed:
            self._sealed.check()
        body = self._room.memory[self._start : self._start + self._size]
        with dataset_in(self._path) as dataset:
            unpack(dataset, body)
        return body.toreadonly()


def read(folder: Path, lock: Lock) -> Stored:
    """The source whose storing gave these files. Raises InvalidModel when they are not what the lock says."""
    seals = {entry.path: Seal(folder, entry.path, entry.sha256) for entry in lock.files}
    graphs = stored_graphs.read(folder, lock, seals)
    in_graph = {name: tensor for graph in graphs.values() for name, tensor in graph.tensors.items()}
    main = graphs.pop(DEFAULT, None)
    room = _Room()
    with contextlib.ExitStack() as refused:
        view = refused.enter_context(contextlib.closing(_View(folder / HDF5_VIEW)))
        found = []
        for entry in lock.tensors:
            if entry.name in in_graph:
                found.append(replace(in_graph[entry.name], name=entry.name))
            else:
                alone = entry.file != HDF5_VIEW
                found.append(_in_file(folder, entry, room, seals.get(entry.file)) if alone else view.tensor(entry))
        with naming_damage(str(folder / HDF5_VIEW)):
            framework, metadata = hdf5.framework_of(view.file), hdf5.metadata_of(view.file)
        refused.pop_all()
    return Stored(
        "onnx" if main else "hdf5",
        main.view.framework if main else framework,
        tuple(found),
        main.view.signature if main else None,
        graph=main.view.graph if main else None,
        groups=view.file,
        metadata=metadata,
        bound_names={name: bound for name, bound in main.bound_names.items() if name != bound} if main else {},
        named={
            name: NamedGraph(graph.view.graph, graph.view.signature, graph.bound_names)
            for name, graph in graphs.items()
            if graph.view.signature
        },
        folder=folder,
        linked=frozenset(entry.file for entry in lock.tensors if entry.file != HDF5_VIEW),
        seals=seals,
    )


def tensor(folder: Path, entry: TensorEntry, seal: Seal | None = None) -> TensorData:
    """One tensor; of the folder nothing but ``entry.file`` need be there. Raises InvalidModel."""
    if entry.file != HDF5_VIEW:
        return _in_file(folder, entry, _Room(), seal)
    with contextlib.closing(_View(folder / HDF5_VIEW)) as view:
        found = view.tensor(entry)
    return replace(found, data=memoryview(bytes(found.data)))  # small: not worth a mapping of its own


def _in_file(folder: Path, entry: TensorEntry, room: _Room, seal: Seal | None) -> TensorData:
    path = folder / entry.file
    with dataset_in(path) as dataset:
        _check(entry, *hdf5.declared(dataset, str(path)), str(path))
        offset = hdf5.contiguous_offset(dataset)
        kept_as_is = not hdf5.is_plain(dataset, entry.dtype)
    if offset is None:
        return _Packed(entry, path, room, seal)
    image = map_file(path)
    body = image[offset : offset + nbytes(entry.dtype, entry.shape)]
    sealed = replace(seal, begin=offset) if seal else None
    return TensorData(entry.name, entry.dtype, entry.shape, body, image if kept_as_is else None, sealed)


@contextlib.contextmanager
def dataset_in(path: Path) -> Iterator[Any]:
    """The dataset of a tensor file, which holds its data itself. Raises InvalidModel."""
    import h5py

    map_file(path)  # a missing file or a pointer is the better message
    with naming_damage(str(path)), open_file(path) as file:
        found = (
            file[hdf5_writing.DATASET]
            if isinstance(file.get(hdf5_writing.DATASET, getlink=True), h5py.HardLink)
            else None
        )
        if not hdf5.is_numeric(found):
            raise InvalidModel(f"{path} has no dataset '{hdf5_writing.DATASET}' of numbers", hint=MEND)
        check_dataset(found, str(path))
        yield found


def _check(entry: TensorEntry, dtype: str, shape: tuple[int, ...], where: str) -> None:
    if (entry.dtype, entry.shape) != (dtype, shape):
        raise InvalidModel(
            f"{where}: '{entry.name}' is {dtype}{list(shape)} and in the lock {entry.dtype}{list(entry.shape)}",
            hint=MEND,
        )


class _View:
    """The HDF5 view, of which the small tensors are read."""

    def __init__(self, path: Path) -> None:
        self._data, self._where = map_file(path), str(path)
        with naming_damage(self._where):
            self.file = open_file(path)

    def close(self) -> None:
        self.file.close()

    def tensor(self, entry: TensorEntry) -> TensorData:
        """The dataset of that name. What the user's own file had in its place may look the same, so the digest tells."""
        with naming_damage(self._where):
            for dataset in self._candidates(entry.name):
                body = self._body(dataset, entry)
                if body is None:
                    continue
                found = TensorData(entry.name, entry.dtype, entry.shape, body)
                if hdf5.digest(found) == entry.sha256:
                    return found
        raise InvalidModel(f"{self._where} has no '{entry.name}' with the bytes of the lock", hint=MEND)

    def _candidates(self, name: str) -> Iterator[Any]:
        """The datasets that stand where ``hdf5.dataset_names`` may have put the tensor."""
        yield self._at(name.split("/"))
        escaped = hdf5.escape(name)
        while escaped in ("", ".") or self.file.get(escaped, getlink=True) is not None:
            yield self._at([escaped])
            escaped += "%"

    def _at(self, parts: list[str]) -> Any:
        """What is found over hard links alone."""
        import h5py

        item = self.file
        for part in parts:
            inside = isinstance(item, h5py.Group) and part not in ("", ".") and "\0" not in part
            if not inside or not isinstance(item.get(part, getlink=True), h5py.HardLink):
                return None
            item = item[part]
        return item

    def _body(self, dataset: Any, entry: TensorEntry) -> memoryview | None:
        """The tensor's bytes if this can be it."""
        import h5py
        import numpy as np

        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            return None
        check_dataset(dataset, f"{self._where}: '{entry.name}'")
        if entry.dtype == "string" and h5py.check_string_dtype(dataset.dtype) and dataset.shape == entry.shape:
            return memoryview(b"\0".join(np.asarray(dataset[()], dtype=object).ravel()))
        if not hdf5.is_numeric(dataset) or hdf5.declared(dataset, self._where) != (entry.dtype, entry.shape):
            return None
        offset = hdf5.contiguous_offset(dataset)
        if offset is None:
            return hdf5.values(dataset)
        return self._data[offset : offset + nbytes(entry.dtype, entry.shape)]
