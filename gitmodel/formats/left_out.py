"""What a model has that a format has no place for, in words: an export says it, so that nothing goes without notice."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from gitmodel.formats import hdf5, onnx
from gitmodel.formats.hdf5_walk import naming_damage, walk
from gitmodel.formats.onnx_walk import tensors
from gitmodel.formats.source import Source
from gitmodel.formats.stored import Stored, dataset_in

_NAMED = 3


def left_out(source: Source, ending: str, written: Container[str] = ()) -> tuple[str, ...]:
    """What a file of this ending (``.onnx``) would not have of the source, when the graphs of the signatures ``written`` get
    files of their own. Raises InvalidModel."""
    hdf5_file = ending in (".h5", ".hdf5")
    found = []
    if ending == ".onnx":
        if others := [name for name in source.named if name not in written]:
            found.append(f"the graphs of other signatures ({', '.join(others)})")
        if strange := _outside_the_graph(source):
            names = ", ".join(strange[:_NAMED]) + (", ..." if len(strange) > _NAMED else "")
            found.append(f"{len(strange)} tensors that the graph has no place for ({names})")
        if source.metadata:
            found.append("the metadata")
    elif source.graph is not None:
        found.append("the graphs" if source.named else "the graph")
    if not hdf5_file and source.groups is not None and "hdf5" in source.format and _has_more_than_tensors(source):
        found.append("what is no tensor in HDF5 (attributes, texts)")
    return tuple(found)


def _outside_the_graph(source: Source) -> list[str]:
    if source.graph is None:
        return []
    inside = {name for name, _ in tensors(source.graph)}
    inside |= {tensor.name for tensor in onnx.learned_lists(source.graph.graph, set(inside))}
    elsewhere = {name for graph in source.named.values() for name in graph.bound_names}
    names = {tensor.name: source.bound_names.get(tensor.name, tensor.name) for tensor in source.tensors}
    return [name for name, bound in names.items() if bound not in inside and name not in elsewhere]


def _has_more_than_tensors(source: Source) -> bool:
    linked = source.linked if isinstance(source, Stored) else frozenset[str]()
    with naming_damage(source.groups.filename):
        if set(source.groups.attrs) - {hdf5.METADATA_ATTRIBUTE}:
            return True
        for path, item in walk(source.groups, linked):
            if isinstance(source, Stored) and (file := getattr(item, "filename", "")):
                with dataset_in(source.folder / file) as dataset:
                    more = not _is_plain(dataset, path)
            else:
                more = not _is_plain(item, path)
            if more:
                return True
    return False


def _is_plain(item: Any, path: str) -> bool:
    """An empty group, or a tensor and nothing else."""
    if hdf5.is_numeric(item):
        return hdf5.is_plain(item, hdf5.declared(item, path)[0])
    return not hasattr(item, "shape") and not len(item.attrs) and hasattr(item, "keys")
