"""Reads the ONNX views of a bundle: its graphs, and which tensor of the lock each of their tensors is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from gitmodel.bundle.bundle import HDF5_VIEW, ONNX_VIEW
from gitmodel.bundle.lock import Lock, TensorEntry
from gitmodel.bundle.signature import DEFAULT
from gitmodel.formats import hdf5, onnx
from gitmodel.formats.binding import alias
from gitmodel.formats.onnx_walk import tensors
from gitmodel.formats.source import InvalidModel, Source, TensorData

MEND = "the file is not of this lock: run 'gitmodel checkout' on the version, or save the model again"
_FURTHER = re.compile(r"model\.(.+)\.onnx")


class StoredGraph(Struct, frozen=True, eq=False):
    """A view as it was read, and its tensors by the names they have in the lock."""

    view: Source
    tensors: Mapping[str, TensorData]

    @property
    def bound_names(self) -> dict[str, str]:
        """The initializer of each tensor."""
        return {name: tensor.name for name, tensor in self.tensors.items()}


def read(folder: Path, lock: Lock) -> dict[str, StoredGraph]:
    """The graphs by signature. Raises InvalidModel when they are not what the lock says."""
    found = {}
    for entry in lock.files:
        further = _FURTHER.fullmatch(entry.path)
        if entry.path == ONNX_VIEW or further:
            view = onnx.read(folder / entry.path)
            signature = further[1] if further else DEFAULT
            found[signature] = StoredGraph(view, _named(lock, view, signature, entry.path))
    return found


def _named(lock: Lock, view: Source, signature: str, where: str) -> dict[str, TensorData]:
    listed = {entry.path for entry in lock.files}
    places: dict[str, str] = {}
    for name, proto in tensors(view.graph):
        for location in [entry.value for entry in proto.external_data if entry.key == "location"]:
            if location not in listed:
                raise InvalidModel(f"{where}: '{name}' is in {location}, which is not in the lock", hint=MEND)
            places[name] = location
    entries: dict[str, list[TensorEntry]] = {}
    for entry in lock.tensors:
        entries.setdefault(alias(entry.name), []).append(entry)
    found: dict[str, TensorData] = {}
    for tensor in view.tensors:
        candidates = _candidates(entries, tensor.name, "" if signature == DEFAULT else f"{signature}/")
        fitting = (entry.name for entry in candidates if _fits(entry, tensor, places.get(tensor.name, "")))
        chosen = next((name for name in fitting if name not in found), None)
        if chosen is None:
            raise InvalidModel(f"{where} has a tensor '{tensor.name}' that is not in the lock", hint=MEND)
        found[chosen] = tensor
    return found


def _candidates(entries: Mapping[str, list[TensorEntry]], name: str, prefix: str) -> Iterator[TensorEntry]:
    """What the tensor may be called in the lock: as here, or as the weights it was bound to (``binding.bind``); one that a
    further graph does not share has the signature before it, and a stroke behind it where that was taken
    (``signatures.join``)."""
    own = f"{prefix}{name}" if prefix else ""
    while own and (listed := entries.get(alias(own))):
        yield from listed
        own += "'"
    yield from sorted(entries.get(alias(name), ()), key=lambda entry: entry.name != name)


def _fits(entry: TensorEntry, tensor: TensorData, location: str) -> bool:
    if (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
        return False
    # The HDF5 view holds many.
    alone = location not in ("", HDF5_VIEW)
    return entry.file == location if alone else entry.sha256 == hdf5.digest(tensor)
