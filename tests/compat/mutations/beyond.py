"""Mutations no runtime here can load: newer than it, or with operators it does not have. They must never pass."""

from __future__ import annotations

from onnx import helper

from tests.compat.mutations.corpus import Specimen
from tests.compat.mutations.surgery import is_tensor, need, picked, prepend, rename, required
from tests.compat.mutations.truth import Mutant, Truth, mutation


@mutation
def ir_beyond_the_runtime(specimen: Specimen) -> Mutant:
    new = specimen.copy()
    listed = {t.name for t in new.graph.initializer} & {v.name for v in new.graph.input}
    need(new.ir_version >= 4 or not listed, "a newer IR makes inputs of its initializers")
    new.ir_version = 99
    return Mutant(specimen.model, new, Truth(loads=False))


@mutation
def opset_beyond_the_runtime(specimen: Specimen) -> Mutant:
    new = specimen.copy()
    entries = [entry for entry in new.opset_import if entry.domain == ""]
    need(entries, "it uses none of ONNX's own operators")
    entries[0].version = 999
    return Mutant(specimen.model, new, Truth(loads=False))


@mutation
def unknown_operator(specimen: Specimen) -> Mutant:
    new = specimen.copy()
    value = picked(required(new), is_tensor, "no input is a tensor")
    name = value.name
    need(name not in {v.name for v in new.graph.output}, "the input is an output, too")
    rename(new.graph, name, "mutant_inner")
    next(v for v in new.graph.input if v.name == "mutant_inner").name = name
    prepend(new.graph, [helper.make_node("Twist", [name], ["mutant_inner"], domain="com.example")])
    new.opset_import.add(domain="com.example", version=1)
    return Mutant(specimen.model, new, Truth(loads=False))
