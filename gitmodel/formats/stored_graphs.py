"""Reads the ONNX views of a bundle: its graphs, and which tensor of the lock each of their tensors is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from msgspec import Struct

from gitmodel.bundle.bundle import HDF5_VIEW, ONNX_VIEW
from gitmodel.bundle.lock import Lock, TensorEntry
from gitmodel.bundle.signature import DEFAULT
from gitmodel.formats import hdf5, onnx
from gitmodel.formats.binding import alias
from gitmodel.formats.onnx_walk import tensors
from gitmodel.formats.source import InvalidModel, Seal, Source, TensorData

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


def read(folder: Path, lock: Lock, seals: Mapping[str, Seal]) -> dict[str, StoredGraph]:
    """The graphs by signature; tensors with files of their own get the ``seals`` of those. Raises InvalidModel
    when they are not what the lock says."""
    found = {}
    for entry in lock.files:
        further = _FURTHER.fullmatch(entry.path)
        if entry.path == ONNX_VIEW or further:
            view = onnx.read(folder / entry.path)
            signature = further[1] if further else DEFAULT
            found[signature] = StoredGraph(view, _named(lock, view, signature, entry.path, seals))
    return found


def _named(lock: Lock, view: Source, signature: str, where: str, seals: Mapping[str, Seal]) -> dict[str, TensorData]:
    places: dict[str, Seal] = {}
    for name, proto in tensors(view.graph):
        outside = {entry.key: entry.value for entry in proto.external_data}
        if location := outside.get("location"):
            if location not in seals:
                raise InvalidModel(f"{where}: '{name}' is in {location}, which is not in the lock", hint=MEND)
            places[name] = replace(seals[location], begin=int(outside.get("offset", 0)))
    entries: dict[str, list[TensorEntry]] = {}
    for entry in lock.tensors:
        entries.setdefault(alias(entry.name), []).append(entry)
    found: dict[str, TensorData] = {}
    for tensor in view.tensors:
        candidates = _candidates(entries, tensor.name, "" if signature == DEFAULT else f"{signature}/")
        # The HDF5 view holds many.
        seal = place if (place := places.get(tensor.name)) and place.path != HDF5_VIEW else None
        fitting = (entry.name for entry in candidates if _fits(entry, tensor, seal))
        chosen = next((name for name in fitting if name not in found), None)
        if chosen is None:
            raise InvalidModel(f"{where} has a tensor '{tensor.name}' that is not in the lock", hint=MEND)
        found[chosen] = replace(tensor, seal=seal)
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


def _fits(entry: TensorEntry, tensor: TensorData, seal: Seal | None) -> bool:
    if (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
        return False
    return entry.file == seal.path if seal else entry.sha256 == hdf5.digest(tensor)
