"""Keras to ONNX: the model's own export, or tf2onnx for a Keras that has none; what gets a new number in every process, or
with every backend, is renamed."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.frameworks import (
    BATCH,
    ConversionFailed,
    exported,
    leaves,
    need,
    output_name,
    rename_dims,
)
from gitmodel.formats.from_torch import evaluating
from gitmodel.formats.onnx_walk import unique
from gitmodel.formats.source import Source

#: Names that Keras makes up for inputs.
_NUMBERED = re.compile(r"(keras_tensor|input_layer|inputs?|args)(_[0-9]+)?")
#: What a free dimension is in an example that is made up.
_MADE_UP_SIZE = 3


def convert(model: Any, example: Any, path: Path) -> Source:
    """The first dimension of inputs and outputs is free, as Keras has it. Without an example one is made up where the
    model says what it takes: an export follows one run, and may take the length of a sequence for a constant."""
    example = list(example) if isinstance(example, tuple) else example
    outputs = None
    if example is not None:
        outputs = model.predict_on_batch(example)
    elif (taken := _taken(model)) is not None:
        with contextlib.suppress(Exception):  # what is made up need not be what the model is for
            made_up = _made_up(taken)
            outputs = model.predict_on_batch(made_up)
            example = made_up
    # With PyTorch as the backend its export leaves the model in evaluation mode.
    with evaluating(model) if hasattr(model, "modules") else contextlib.nullcontext():
        _export(model, path)
    source, _ = exported(path)
    source.graph.graph.ClearField("doc_string")  # the number that TensorFlow gave the function this time
    _name(source.graph.graph, outputs if outputs is not None else getattr(model, "output", None))
    signature = onnx_format.signature_of(source.graph, str(path))
    cases = () if outputs is None else (_case(signature, example, outputs),)
    return replace(source, signature=signature, cases=cases)


def _taken(model: Any) -> Any:
    """The symbolic inputs of a model that is made of layers; None for one that is written as a class."""
    with contextlib.suppress(AttributeError, ValueError):  # not built yet
        return model.input if hasattr(model, "input") else (model.inputs or [None])[0]
    return None


def _made_up(taken: Any) -> Any:
    import numpy as np

    if isinstance(taken, Mapping):
        return {key: _made_up(value) for key, value in taken.items()}
    if isinstance(taken, (tuple, list)):
        return [_made_up(value) for value in taken]
    shape = [_MADE_UP_SIZE if size is None else size for size in taken.shape]
    kind = np.dtype(getattr(taken.dtype, "name", taken.dtype))
    return np.random.default_rng(0).normal(size=shape).astype(kind) if kind.kind == "f" else np.zeros(shape, kind)


def _export(model: Any, path: Path) -> None:
    """Writes the ONNX file. Raises MissingConverter, ConversionFailed, and what Keras raises."""
    if "format" not in inspect.signature(model.export).parameters:
        need("tf2onnx").convert.from_keras(model, output_path=str(path))
        return
    if not model.built:
        raise ConversionFailed(
            f"the {type(model).__name__} is not built, so it is not known what it takes",
            hint="give example=, inputs as it takes them",
        )
    taken = None if getattr(model, "_called", True) else _taken(model)
    options = {} if taken is None else {"input_signature": [taken]}
    model.export(str(path), format="onnx", verbose=False, **options)


def _case(signature: Signature, example: Any, outputs: Any) -> GoldenCase:
    import numpy as np

    given = [np.asarray(value) for _, value in leaves(_sorted(example))]
    inputs = {spec.name: value.astype(spec.dtype) for spec, value in zip(signature.inputs, given, strict=True)}
    made = [value for _, value in leaves(_sorted(outputs))]
    return GoldenCase("example", inputs, dict(zip((spec.name for spec in signature.outputs), made, strict=True)))


def _sorted(value: Any) -> Any:
    """With mappings in the order of their keys, which is the order of Keras' exports."""
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(held) for held in value] if isinstance(value, (tuple, list)) else value


def _name(graph: Any, outputs: Any) -> None:
    """Outputs are named by their keys or places in what the model gives, free dimensions by theirs."""
    seen = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    seen |= {value.name for value in graph.input}
    seen -= {value.name for value in graph.output}
    names = {}
    for number, value in enumerate(graph.input):
        if _NUMBERED.fullmatch(value.name):
            names[value.name] = unique("input" if len(graph.input) == 1 else f"input_{number}", seen)
    places = [place for place, _ in leaves(_sorted(outputs))]
    if len(places) != len(graph.output):
        places = [() if len(graph.output) == 1 else (str(number),) for number in range(len(graph.output))]
    for place, value in zip(places, graph.output, strict=True):
        if value.name not in names:
            names[value.name] = unique(output_name(place), seen)
    _rename(graph, names)
    dims: dict[str, str] = {}
    for name, axis, symbol in _symbols(graph):
        dims.setdefault(symbol, f"{name}_{axis}" if axis else BATCH)
    rename_dims(graph, dims)


def _symbols(graph: Any) -> Iterator[tuple[str, int, str]]:
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                yield value.name, axis, dim.dim_param


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Gives values other names wherever they stand, in nested graphs, too."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for listed in (node.input, node.output):
            listed[:] = [names.get(name, name) for name in listed]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename(inner, names)
