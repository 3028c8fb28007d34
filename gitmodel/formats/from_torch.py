"""PyTorch to ONNX: ``torch.onnx.export``, with names that stay from one training to the next and a free batch dimension."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.frameworks import BATCH, ConversionFailed, exported, leaves, output_name, rename_dims
from gitmodel.formats.onnx_walk import unique
from gitmodel.formats.source import Source, first_line

if TYPE_CHECKING:
    import numpy as np

#: The exporter writes down where in the author's own files each node comes from.
_TRACES = "pkg.torch.onnx.stack_trace"
#: What the tracer warns of when it follows one branch and forgets the other.
_BRANCHED = "Python boolean"


def convert(model: Any, example: Any, path: Path) -> Source:
    """Traces the model in evaluation mode. The first dimension of the inputs is free where the model takes other sizes.

    The cases are the example, and another with more rows and their values turned round: what the exporter took for a
    constant, be it a size or a value, shows.
    """
    torch = import_module("torch")
    if example is None:
        raise ConversionFailed(
            f"a {type(model).__name__} is traced with inputs, and there are none",
            hint="give example=: a tensor or array, a tuple of them, or a dict by the names that forward has",
        )
    call = _bound(torch, model, example)
    rows = next((len(tensor) for tensor in _inputs(torch, call).values() if tensor.ndim), 0)
    with evaluating(model), torch.no_grad():
        case = _case(torch, model, call)
        if rows and (free := _exported_free(torch, model, call, rows, case, path)):
            return free
        _export(torch, model, call, path, (case,), rows=0)
        source, signature = _read(path)
        cases = (case, *_other_case(torch, model, _turned(torch, call, rows, longer=False)))
    return replace(source, cases=tuple(_fitting(case, signature) for case in cases))


def _exported_free(
    torch: Any, model: Any, call: inspect.BoundArguments, rows: int, case: GoldenCase, path: Path
) -> Source | None:
    """The model with its number of rows free, or None if it takes this one alone."""
    longer = _turned(torch, call, rows, longer=True)
    others = _other_case(torch, model, longer)
    if not others:
        return None
    try:
        # A single row would be taken for a constant.
        traced = longer if rows == 1 else call
        _export(torch, model, traced, path, (case, *others), rows=max(rows, 2))
    except Exception:  # exporters share no base but Exception; without free rows it may do
        return None
    source, signature = _read(path)
    specs = [signature.input(n) for n, value in _inputs(torch, call).items() if _counts_rows(torch, value, rows)]
    symbols = {spec.shape[0] for spec in specs if spec is not None and spec.shape}
    if not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        return None
    rename_dims(source.graph.graph, {str(symbol): BATCH for symbol in symbols})
    signature = onnx_format.signature_of(source.graph, str(path))
    fitting = tuple(_fitting(each, signature) for each in (case, *others))
    return replace(source, signature=signature, cases=fitting)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode, and afterwards every part in the mode it was in."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _bound(torch: Any, model: Any, example: Any) -> inspect.BoundArguments:
    """The example as arguments of ``forward``, arrays as tensors where the model is. Raises ConversionFailed."""
    import numpy as np

    parameter = next(iter(model.parameters()), None)

    def tensor(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            value = torch.tensor(value)
        return value.to(parameter.device) if isinstance(value, torch.Tensor) and parameter is not None else value

    given = torch.utils._pytree.tree_map(tensor, example)
    try:
        signature = inspect.signature(model.forward)
    except ValueError:  # compiled by torch.jit.trace, which takes places alone
        signature = inspect.Signature([inspect.Parameter("input", inspect.Parameter.VAR_POSITIONAL)])
    try:
        if isinstance(given, dict):
            return signature.bind(**given)
        return signature.bind(*(given if isinstance(given, tuple) else (given,)))
    except TypeError as error:
        raise ConversionFailed(
            f"the example does not fit forward{signature} ({first_line(error)})",
            hint="give a tuple in its order, or a dict by its names",
        ) from None


def _inputs(torch: Any, call: inspect.BoundArguments) -> dict[str, Any]:
    """The tensors of a call, named after the parameters of ``forward``."""
    seen: set[str] = set()
    found = [(place, value) for place, value in leaves(call.arguments) if isinstance(value, torch.Tensor)]
    return {unique("_".join(place), seen): value for place, value in found}


def _case(torch: Any, model: Any, call: inspect.BoundArguments) -> GoldenCase:
    """What the model itself gives. Raises ConversionFailed for what is no tensor, and what ``forward`` raises."""
    inputs = {name: _array(torch, tensor) for name, tensor in _inputs(torch, call).items()}
    outputs, seen = {}, set(inputs)
    for place, value in leaves(model(*call.args, **call.kwargs)):
        name = output_name(place)
        if isinstance(value, torch.Tensor):
            outputs[unique(f"output_{name}" if name in inputs else name, seen)] = _array(torch, value)
        elif value is not None:
            raise ConversionFailed(
                f"{type(model).__name__}.forward gives '{name}' as {type(value).__name__}, which is no tensor",
                hint="return tensors alone, in tuples, lists or mappings",
            )
    return GoldenCase("example", inputs, outputs)


def _array(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _other_case(torch: Any, model: Any, call: inspect.BoundArguments) -> tuple[GoldenCase, ...]:
    """The case of another call, none if ``forward`` does not take it."""
    try:
        return (_case(torch, model, call),)
    except Exception:  # forward may raise anything
        return ()


def _turned(torch: Any, call: inspect.BoundArguments, rows: int, *, longer: bool) -> inspect.BoundArguments:
    """The call with the values of every tensor of that many rows in the reverse order; ``longer``: behind those it has."""

    def turn(value: Any) -> Any:
        if not _counts_rows(torch, value, rows):
            return value
        reverse = value.flip(tuple(range(value.ndim)))
        return torch.cat([value, reverse]) if longer else reverse

    arguments = {name: torch.utils._pytree.tree_map(turn, value) for name, value in call.arguments.items()}
    return inspect.BoundArguments(call.signature, arguments)


def _counts_rows(torch: Any, value: Any, rows: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == rows > 0


def _export(
    torch: Any, model: Any, call: inspect.BoundArguments, path: Path, cases: Sequence[GoldenCase], *, rows: int
) -> None:
    """Writes the ONNX file; the dimensions of that many rows are free. Raises what the newer exporter raises when the
    older one fails, too."""
    names = {"input_names": list(cases[0].inputs), "output_names": list(cases[0].outputs)}
    # Of the positional arguments the last mapping would be taken for the keywords.
    arguments = (*call.args, call.kwargs)
    free = {0: torch.export.Dim(BATCH)}

    def shape(value: Any) -> Any:
        return free if _counts_rows(torch, value, rows) else None

    shapes = torch.utils._pytree.tree_map(shape, dict(call.arguments)) if rows else None
    try:
        torch.onnx.export(model, arguments, str(path), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
    except Exception as error:  # exporters share no base but Exception
        try:
            _trace(torch, model, arguments, path, dynamic_axes=_axes(cases[0], cases[-1]), **names)
        except ConversionFailed as branched:
            raise (error if isinstance(error, ImportError) else branched) from None
        except Exception:
            raise error from error.__cause__


def _axes(case: GoldenCase, other: GoldenCase) -> dict[str, dict[int, str]]:
    """The dimensions in which the two cases differ."""
    arrays = {**case.inputs, **case.outputs}
    found = {}
    for name, array in (*other.inputs.items(), *other.outputs.items()):
        sizes = enumerate(zip_longest(arrays[name].shape, array.shape))
        found[name] = {axis: BATCH for axis, (one, two) in sizes if one != two}
    return found


def _trace(torch: Any, model: Any, arguments: tuple[Any, ...], path: Path, **options: Any) -> None:
    """The older exporter, which follows one run. Raises ConversionFailed when another run could go another way."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.onnx.export(model, arguments, str(path), dynamo=False, **options)
    if any(_BRANCHED in str(warning.message) for warning in warned):
        raise ConversionFailed(
            f"{type(model).__name__}.forward branches on values, of which a trace keeps one branch alone",
            hint="write it with torch.where or torch.cond, or export it yourself and save the file",
        )


def _read(path: Path) -> tuple[Source, Signature]:
    source, signature = exported(path)
    for function in source.graph.functions:
        _forget_traces(function)
    _forget_traces(source.graph.graph)
    return source, signature


def _forget_traces(graph: Any) -> None:
    for node in graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != _TRACES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _forget_traces(inner)


def _fitting(case: GoldenCase, signature: Signature) -> GoldenCase:
    """The case without inputs that the exporter left out, because they play no part."""
    names = {spec.name for spec in signature.inputs}
    return replace(case, inputs={name: value for name, value in case.inputs.items() if name in names})
