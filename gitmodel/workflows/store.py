"""A source's tensors become files in the cache: one per large tensor, the two views over them, and the lock that names all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gitmodel.bundle.bundle import HDF5_VIEW, ONNX_VIEW
from gitmodel.bundle.lock import FileEntry, Lock, TensorEntry
from gitmodel.formats import naming
from gitmodel.formats.source import TENSOR_FILE_BYTES, Source, TensorData
from gitmodel.storage.cache import Added, Cache


@dataclass(frozen=True)
class _Place:
    """Where a tensor's bytes went: its file, the offset in it, and whether the file is new."""

    entry: FileEntry
    offset: int | None
    sha256: str
    fresh: bool


def store_weights(source: Source, cache: Cache, parent: Lock | None) -> tuple[Lock, list[FileEntry]]:
    """Writes tensor files and views into the cache; returns the lock and the files that were not known before."""
    from gitmodel.formats import hdf5

    large = [t for t in source.tensors if len(t.data) >= TENSOR_FILE_BYTES and t.dtype != "string"]
    paths = naming.tensor_files(t.name for t in large)
    known = {(t.name, t.dtype, t.shape): t for t in parent.tensors} if parent else {}
    # HDF5 is not for several threads, so headers are made first; hashing and writing release the interpreter's lock.
    headers = {t.name: hdf5.tensor_file(t.dtype, t.shape) for t in large if t.stored is None}

    def store(tensor: TensorData) -> _Place:
        before = known.get((tensor.name, tensor.dtype, tensor.shape))
        entry = parent.file(before.file) if parent and before else None
        if tensor.stored is not None:
            added = cache.add(tensor.stored)
            digest = _body_digest(tensor)
            return _Place(
                added.entry(paths[tensor.name]),
                hdf5.stored_offset(tensor.stored),
                digest,
                entry is None or entry.md5 != added.md5,
            )
        header = headers[tensor.name]
        if before and entry and cache.holds(entry, tensor.data, header.offset):
            return _Place(
                FileEntry(paths[tensor.name], entry.size, entry.sha256, entry.md5),
                header.offset,
                before.sha256,
                fresh=False,
            )
        added = cache.add(tensor.data, header.header)
        return _Place(added.entry(paths[tensor.name]), header.offset, added.body_sha256, fresh=True)

    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="save") as pool:
        places = dict(zip((t.name for t in large), pool.map(store, large), strict=True))
    views = _views(source, cache, places)
    tensors = []
    for tensor in source.tensors:
        if tensor.name in places:
            digest, file = places[tensor.name].sha256, paths[tensor.name]
        else:
            digest, file = _body_digest(tensor), HDF5_VIEW
        tensors.append(TensorEntry(tensor.name, tensor.dtype, tensor.shape, digest, file))
    files = [place.entry for place in places.values()] + [view.entry(path) for path, view in views.items()]
    old = {entry.md5 for entry in parent.files} if parent else set()
    return Lock.of(tensors, files), [entry for entry in files if entry.md5 not in old]


def _views(source: Source, cache: Cache, places: Mapping[str, _Place]) -> dict[str, Added]:
    from gitmodel.formats import hdf5

    links = {name: place.entry.path for name, place in places.items()}
    views = {HDF5_VIEW: cache.add(hdf5.write_view(source, links))}
    if source.graph is not None:
        from gitmodel.formats import onnx

        sizes = {t.name: len(t.data) for t in source.tensors}
        placements = {}
        for name, place in places.items():
            if place.offset is not None:
                bound = source.bound_names.get(name, name)
                placements[bound] = onnx.Placement(place.entry.path, place.offset, sizes[name])
        by_initializer = {source.bound_names.get(t.name, t.name): t for t in source.tensors}
        views[ONNX_VIEW] = cache.add(onnx.write_view(source.graph, placements, by_initializer))
    return views


def _body_digest(tensor: TensorData) -> str:
    return hashlib.sha256(tensor.data).hexdigest()
