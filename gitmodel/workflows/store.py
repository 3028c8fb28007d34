"""A source's tensors become files in the cache: one per large tensor, the two views over them, and the lock that names all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from gitmodel.bundle.bundle import HDF5_VIEW, LOCK, view_of
from gitmodel.bundle.lock import FileEntry, InvalidLock, Lock, TensorEntry
from gitmodel.bundle.signature import DEFAULT
from gitmodel.formats import naming
from gitmodel.formats.source import TENSOR_FILE_BYTES, Source, TensorData
from gitmodel.storage.blocks import Hashed
from gitmodel.storage.cache import Cache
from gitmodel.storage.drafts import Drafts

if TYPE_CHECKING:
    from gitmodel.formats.hdf5 import TensorFile

#: More than there are cores: while one waits for the disk another hashes.
_WORKERS = 4
#: As many as bring a memory to its limit.
_COMPARING = 2
#: What tells at a glance that bytes are others: training changes values everywhere.
_GLANCE = 4 << 10
#: Bytes before a tensor's own: HDF5's, and what a mark says of its type and shape.
_MOST_HEADER = 64 << 10


class _Place(Struct, frozen=True):
    """Where a tensor's file stands, and where in it its bytes begin; None when they cannot be mapped from it."""

    path: str
    offset: int | None


class _Stored(Struct, frozen=True):
    """A tensor's file and the digest of the tensor."""

    entry: FileEntry
    sha256: str


class _Begun(Struct, frozen=True):
    """What was begun for a tensor before its header was known, with the ``header`` of the file that it had: whether its bytes are
    those of that file, or else the writing of another."""

    header: bytes
    compared: tuple[FileEntry, Future[bool]] | None
    written: Future[_Stored] | None


@dataclass
class _Storing:
    """Tensors on their way into the cache: what can be is begun before the header is known, and the rest follows."""

    cache: Cache
    drafts: Drafts | None
    comparing: Executor
    writing: Executor

    def begin(self, tensor: TensorData, before: FileEntry | None, path: str) -> _Begun | None:
        """``before`` is the file that the tensor of this name, type and shape had."""
        size = before.size - len(tensor.data) if before else 0
        if before is None or tensor.stored is not None or not 0 < size <= _MOST_HEADER:
            return None
        start = self.cache.beginning(before, min(before.size, size + _GLANCE))
        if not start:
            return None
        if start[size:] == tensor.data[:_GLANCE]:
            return _Begun(
                start[:size], (before, self.comparing.submit(self.cache.ends_with, before, tensor.data)), None
            )
        return _Begun(start[:size], None, self.writing.submit(self._add, tensor.data, start[:size], path))

    def go_on(self, tensor: TensorData, head: TensorFile, begun: _Begun | None, path: str) -> Future[_Stored]:
        """Now that its header is known."""
        if begun and begun.header != head.header:
            # Another version of HDF5 wrote it, or the lock has been edited. What was written behind it stays for gc: another tensor
            # may have the very same file.
            if begun.written:
                begun.written.cancel()
            begun = None
        if begun and begun.written:
            return begun.written
        return self.writing.submit(self._store, tensor, head.header, begun.compared if begun else None, path)

    def _store(
        self, tensor: TensorData, header: bytes, compared: tuple[FileEntry, Future[bool]] | None, path: str
    ) -> _Stored:
        from gitmodel.formats import hdf5

        if tensor.stored is not None:
            return _Stored(self.cache.add(tensor.stored).entry(path), hdf5.digest(tensor))
        if compared and compared[1].result() and self.cache.fits(entry := compared[0]):
            return _Stored(FileEntry(path, entry.size, entry.sha256, entry.md5), entry.sha256)
        return self._add(tensor.data, header, path)

    def _add(self, body: memoryview, header: bytes, path: str) -> _Stored:
        if self.drafts is None:
            hashed = self.cache.add(body, header)
        else:
            with self.drafts.writing() as draft:
                hashed = self.cache.add(body, header, draft.take)
                draft.keep(hashed.sha256)
        return _Stored(hashed.entry(path), hashed.sha256)


def store_weights(
    source: Source,
    cache: Cache,
    parent: Lock | None,
    drafts: Drafts | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[Lock, list[FileEntry]]:
    """Writes tensor files and views into the cache; returns the lock and the files that were not there before. ``drafts``
    get what was written, for the working tree. ``meanwhile`` is called once while tensors are hashed."""
    already = cache.written
    large = [t for t in source.tensors if len(t.data) >= TENSOR_FILE_BYTES and t.dtype != "string"]
    paths = naming.tensor_files(t.name for t in large)
    large.sort(key=lambda tensor: -len(tensor.data))  # so that the last to end is a small one
    places: dict[str, _Place] = {}
    pending: dict[str, Future[_Stored]] = {}
    with _pool(_COMPARING) as comparing, _pool(_WORKERS) as writing:
        storing = _Storing(cache, drafts, comparing, writing)
        before = _files_before(parent)
        # Headers are HDF5's, which takes long to import: first what need not wait for that.
        ahead = {
            tensor.name: storing.begin(
                tensor, before.get((tensor.name, tensor.dtype, tensor.shape)), paths[tensor.name]
            )
            for tensor in large
        }
        from gitmodel.formats import hdf5

        # HDF5 is not for several threads, so headers are made here; hashing and writing release the interpreter's lock. What has not
        # begun takes longest.
        for tensor in sorted(large, key=lambda tensor: ahead[tensor.name] is not None):
            head, path = hdf5.tensor_file(tensor.dtype, tensor.shape), paths[tensor.name]
            offset = head.offset if tensor.stored is None else hdf5.stored_offset(tensor.stored)
            places[tensor.name] = _Place(path, offset)
            pending[tensor.name] = storing.go_on(tensor, head, ahead[tensor.name], path)
        views = _views(source, cache, {tensor.name: places[tensor.name] for tensor in large})
        meanwhile()
        stored = {name: future.result() for name, future in pending.items()}
    tensors = []
    for tensor in source.tensors:
        is_large = tensor.name in stored
        digest = stored[tensor.name].sha256 if is_large else hdf5.digest(tensor)
        file = paths[tensor.name] if is_large else HDF5_VIEW
        tensors.append(TensorEntry(tensor.name, tensor.dtype, tensor.shape, digest, file))
    files = [item.entry for item in stored.values()] + [view.entry(path) for path, view in views.items()]
    added = cache.written - already
    return Lock.of(tensors, files), [entry for entry in files if cache.path(entry.md5) in added]


def _files_before(parent: Lock | None) -> dict[tuple[str, str, tuple[int, ...]], FileEntry | None]:
    """The file that each tensor had, by its name, type and shape."""
    if parent is None:
        return {}
    files = {entry.path: entry for entry in parent.files}
    return {(tensor.name, tensor.dtype, tensor.shape): files.get(tensor.file) for tensor in parent.tensors}


def lock_before(folder: Path) -> Lock | None:
    """The lock that a bundle's folder was laid out by; None where there is none, or it is damaged, which a save or a
    checkout is to mend."""
    path = folder / LOCK
    with suppress(InvalidLock):
        return Lock.from_text(path.read_bytes(), str(path)) if path.is_file() and not path.is_symlink() else None
    return None


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are through when this ends, however it ends: an error must not leave them writing."""
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="save")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _views(source: Source, cache: Cache, places: Mapping[str, _Place]) -> dict[str, Hashed]:
    from gitmodel.formats import hdf5

    links = {name: place.path for name, place in places.items()}
    view = hdf5.write_view(source, links)
    views = {HDF5_VIEW: cache.add(view.image)}
    if source.graph is not None:
        from gitmodel.formats import onnx

        tensors = {tensor.name: tensor for tensor in source.tensors}
        everywhere = {name: (place.path, place.offset) for name, place in places.items() if place.offset is not None}
        everywhere |= {name: (HDF5_VIEW, offset) for name, offset in view.offsets.items()}
        whole = {name: source.bound_names.get(name, name) for name in tensors}
        graphs = {DEFAULT: (source.graph, whole)}
        graphs |= {name: (named.graph, dict(named.bound_names)) for name, named in source.named.items()}
        for signature, (graph, bound) in graphs.items():
            placements = {
                initializer: onnx.Placement(*everywhere[name], len(tensors[name].data))
                for name, initializer in bound.items()
                if name in everywhere
            }
            data = {initializer: tensors[name] for name, initializer in bound.items()}
            views[view_of(signature)] = cache.add(onnx.write_view(graph, placements, data))
    return views
