"""Several ways to call one model, as in a SavedModel: more graphs over the same weights, or groups of one graph's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gitmodel.bundle.card import Group
from gitmodel.bundle.signature import DEFAULT, Signature, Signatures
from gitmodel.formats.mapping import let_go
from gitmodel.formats.source import InvalidModel, NamedGraph, Source, TensorData, blocks


def join(main: Source, others: Mapping[str, Source]) -> Source:
    """``main`` with a further graph for each name. A tensor that ``main`` has under the same name with the same values is
    shared; any other is called ``<signature>/<tensor>``. Raises InvalidModel."""
    tensors = {tensor.name: tensor for tensor in main.tensors}
    #: What the main graph finds a tensor by: a name of another graph's must not be taken for one of these.
    taken = set(main.bound_names.values())
    named: dict[str, NamedGraph] = {}
    for name, other in others.items():
        if other.graph is None or other.signature is None:
            raise InvalidModel(f"the signature '{name}' has no graph", hint="give an ONNX file for it")
        bound: dict[str, str] = {}
        for tensor in other.tensors:
            initializer = other.bound_names.get(tensor.name, tensor.name)
            shared = tensors.get(tensor.name)
            if shared is not None and _same(shared, tensor):
                bound[tensor.name] = initializer
                continue
            own = f"{name}/{tensor.name}"
            while own in tensors or own in taken:
                own += "'"
            tensors[own] = replace(tensor, name=own)
            bound[own] = initializer
        named[name] = NamedGraph(other.graph, other.signature, bound)
    files = tuple(file for source in (main, *others.values()) for file in source.files)
    return replace(main, tensors=tuple(tensors.values()), named=named, files=files)


def of(source: Source, groups: Mapping[str, Group], where: str) -> Signatures:
    """All signatures of a model: the default one, one for each further graph, and one for each group of the card's.
    Raises InvalidModel for a group that names what the model does not have."""
    found = {DEFAULT: source.signature} if source.signature else {}
    found |= {name: graph.signature for name, graph in source.named.items()}
    return Signatures(found | grouped(found.get(DEFAULT), groups, where, taken=found))


def grouped(
    whole: Signature | None, groups: Mapping[str, Group], where: str, taken: Mapping[str, Signature]
) -> dict[str, Signature]:
    """The signatures that ``groups`` make of the whole one. Raises InvalidModel."""
    found = {}
    for name, group in groups.items():
        if whole is None or name in taken:
            said = "there is no graph to group" if whole is None else "a graph has that name"
            raise InvalidModel(f"{where}: signature '{name}': {said}", hint="mend 'signatures' in model.yaml")
        sides = []
        for wanted, specs in ((group.inputs, whole.inputs), (group.outputs, whole.outputs)):
            by_name = {spec.name: spec for spec in specs}
            if strange := [one for one in wanted if one not in by_name]:
                raise InvalidModel(
                    f"{where}: signature '{name}' names '{strange[0]}', which the model does not have",
                    hint=f"it has {', '.join(by_name)}",
                )
            sides.append(tuple(by_name[one] for one in wanted) if wanted else specs)
        found[name] = Signature(*sides)
    return found


def _same(one: TensorData, other: TensorData) -> bool:
    """Whether they are the same tensor; compared block by block, so that memory stays flat."""
    if (one.dtype, one.shape, len(one.data)) != (other.dtype, other.shape, len(other.data)):
        return False
    if (one.stored is None) != (other.stored is None) or (
        one.stored and bytes(one.stored) != bytes(other.stored or b"")
    ):
        return False
    for ours, theirs in zip(blocks(one.data), blocks(other.data), strict=True):
        if bytes(ours) != bytes(theirs):
            return False
        let_go(ours)
        let_go(theirs)
    return True
