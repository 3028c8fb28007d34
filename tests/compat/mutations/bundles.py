"""Mutations of what stands beside a graph: class labels, weights in a file of their own, checkpoints, recorded cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from gitmodel.bundle.golden import GoldenCase
from tests.compat.mutations import oracle
from tests.compat.mutations.corpus import Specimen
from tests.compat.mutations.surgery import FLOATS, PLAIN, dims, is_tensor, need, picked, required
from tests.compat.mutations.truth import MAJOR, PATCH, Bumps, Mutant, Truth, mutation

Labels = list[str]
MOST_CLASSES = 2000


def _classes(specimen: Specimen) -> Labels:
    """A label for each place along the last axis of the first output that could be a classifier's."""

    def fits(value: onnx.ValueInfoProto) -> bool:
        last = (dims(value) or [None])[-1]
        return is_tensor(value, FLOATS) and isinstance(last, int) and 2 <= last <= MOST_CLASSES

    last = (dims(picked(specimen.model.graph.output, fits, "no output has classes")) or [0])[-1]
    assert isinstance(last, int)
    return [f"class {number}" for number in range(last)]


def relabelled(change: Callable[[Labels], tuple[Labels, str]]) -> Callable[[Labels], tuple[Labels, str]]:
    """Enters a change of the class list; it returns the new list and the rule that must speak, if any."""

    def mutate(specimen: Specimen) -> Mutant:
        old = _classes(specimen)
        new, rule = change(list(old))
        truth = Truth({(rule, "labels"): MAJOR} if rule else {}, same_bytes=True)
        return Mutant(specimen.model, specimen.model, truth, labels=(old, new))

    mutate.__name__ = change.__name__
    mutation(mutate)
    return change


@relabelled
def labels_kept(labels: Labels) -> tuple[Labels, str]:
    return labels, ""


@relabelled
def labels_swapped(labels: Labels) -> tuple[Labels, str]:
    return [labels[1], labels[0], *labels[2:]], "label-reordered"


@relabelled
def label_appended(labels: Labels) -> tuple[Labels, str]:
    return [*labels, "another"], "label-appended"


@relabelled
def label_inserted(labels: Labels) -> tuple[Labels, str]:
    return [labels[0], "another", *labels[1:]], "label-inserted"


@relabelled
def label_removed(labels: Labels) -> tuple[Labels, str]:
    return labels[1:], "label-removed"


@relabelled
def label_renamed(labels: Labels) -> tuple[Labels, str]:
    return ["another", *labels[1:]], "label-renamed"


@relabelled
def labels_all_removed(labels: Labels) -> tuple[Labels, str]:
    del labels
    return [], "labels-removed"


@mutation
def labels_added(specimen: Specimen) -> Mutant:
    """Where there were none, nobody reads any."""
    return Mutant(specimen.model, specimen.model, Truth(same_bytes=True), labels=([], _classes(specimen)))


# Weights in a file of their own -----------------------------------------------------------------------------------------


@mutation
def weights_in_another_file(specimen: Specimen) -> Mutant:
    held = [t for t in specimen.model.graph.initializer if t.data_type in PLAIN and len(t.raw_data) > 0]
    need(held, "it has no weights as raw bytes")
    return Mutant(specimen.model, specimen.copy(), Truth(exact=True), outside=True)


# Checkpoints ------------------------------------------------------------------------------------------------------------

Tensors = dict[str, np.ndarray]


def _checkpoint(specimen: Specimen) -> Tensors:
    held = {t.name: numpy_helper.to_array(t) for t in specimen.model.graph.initializer if t.data_type in PLAIN}
    need(held, "it has no weights")
    return {f"layer.{name}".replace("/", "."): values for name, values in held.items()}


def restored(change: Callable[[Tensors, str], Mapping[tuple[str, str], Bumps]]) -> object:
    """Enters a change of a checkpoint's tensors; it works on the copy it is given, of which it is told the first name."""

    def mutate(specimen: Specimen) -> Mutant:
        old = _checkpoint(specimen)
        new = dict(old)
        return Mutant(old, new, Truth(change(new, next(iter(old))), same_bytes=True))

    mutate.__name__ = change.__name__
    mutation(mutate)
    return change


@restored
def checkpoint_kept(tensors: Tensors, name: str) -> Mapping[tuple[str, str], Bumps]:
    del tensors, name
    return {}


@restored
def tensor_removed(tensors: Tensors, name: str) -> Mapping[tuple[str, str], Bumps]:
    need(len(tensors) > 1, "it has one tensor")
    del tensors[name]
    return {("tensor-removed", f"tensors.{name}"): MAJOR}


@restored
def tensor_added(tensors: Tensors, name: str) -> Mapping[tuple[str, str], Bumps]:
    del name
    tensors["another"] = np.ones(3, "float32")
    return {("tensor-added", "tensors.another"): MAJOR}


@restored
def tensor_reshaped(tensors: Tensors, name: str) -> Mapping[tuple[str, str], Bumps]:
    tensors[name] = tensors[name][None]
    return {("tensor-shape-changed", f"tensors.{name}"): MAJOR}


@restored
def tensor_retyped(tensors: Tensors, name: str) -> Mapping[tuple[str, str], Bumps]:
    tensors[name] = tensors[name].astype("float16" if tensors[name].dtype != np.float16 else "float32")
    return {("tensor-dtype-changed", f"tensors.{name}"): MAJOR}


@restored
def tensor_retrained(tensors: Tensors, name: str) -> Mapping[tuple[str, str], Bumps]:
    need(tensors[name].size and tensors[name].dtype != np.bool_, "its first tensor is empty or of flags")
    tensors[name] = tensors[name] + tensors[name].dtype.type(1)
    return {("tensor-values-changed", "tensors"): PATCH}


# Recorded cases -----------------------------------------------------------------------------------------------------------


def _recorded(specimen: Specimen) -> tuple[GoldenCase, ...]:
    """The calls the onnx package itself keeps of the model, with the outputs the runtime gives."""
    names, opened = [v.name for v in required(specimen.model)], oracle.session(specimen.model)
    need(opened is not None, "the runtime does not load it")
    assert opened is not None
    need(
        all(is_tensor(v, PLAIN) for v in (*required(specimen.model), *specimen.model.graph.output)),
        "not all are plain tensors",
    )
    cases = []
    for number, (inputs, _) in enumerate(specimen.data):
        given: dict[str, Any] = dict(zip(names, inputs, strict=False))
        if len(inputs) == len(names) and all(isinstance(v, np.ndarray) for v in inputs):
            try:
                outputs = opened.run(None, given)
            except Exception:  # what the runtime refuses is no promise
                continue
            cases.append(
                GoldenCase(f"onnx/{number}", given, dict(zip(specimen_outputs(specimen), outputs, strict=True)))
            )
    need(cases, "the onnx package has no call of it that the runtime answers")
    return tuple(cases)


def specimen_outputs(specimen: Specimen) -> list[str]:
    return [value.name for value in specimen.model.graph.output]


@mutation
def exported_again_with_recorded_cases(specimen: Specimen) -> Mutant:
    cases, new = _recorded(specimen), specimen.copy()
    new.producer_name = "another exporter"
    return Mutant(specimen.model, new, Truth(exact=True), recorded=cases)


@mutation
def output_renamed_with_recorded_cases(specimen: Specimen) -> Mutant:
    from tests.compat.mutations.outputs import output_renamed

    cases, made = _recorded(specimen), output_renamed(specimen)
    return Mutant(made.old, made.new, made.truth, recorded=cases)


@mutation
def output_refused_with_recorded_cases(specimen: Specimen) -> Mutant:
    """Every recorded call fails on NEW."""
    from tests.compat.mutations.behaviour import call_refused

    cases, made = _recorded(specimen), call_refused(specimen)
    return Mutant(made.old, made.new, made.truth, recorded=cases)
