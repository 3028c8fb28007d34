"""Models of PyTorch, scikit-learn and Keras: which library an object is of, and whether the ONNX model made of it does what
the library does. The conversions themselves are one module each, named in one table.

An object is known by the modules of its classes, so that asking imports nothing.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gitmodel.bundle.card import DEFAULT_TOLERANCES
from gitmodel.bundle.signature import Signature
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.source import InvalidModel, Source, first_line

if TYPE_CHECKING:
    import numpy as np

#: Package and class that a model's class descends from, and the module that converts it. Keras stands first: its models
#: are torch modules, too, where PyTorch is its backend.
CONVERTERS = {
    ("keras", "Model"): "gitmodel.formats.from_keras",
    ("tf_keras", "Model"): "gitmodel.formats.from_keras",
    ("sklearn", "BaseEstimator"): "gitmodel.formats.from_sklearn",
    ("torch", "Module"): "gitmodel.formats.from_torch",
}
#: The name of a dimension that is free because it counts rows.
BATCH = "batch"


class MissingConverter(GitmodelError):
    """The package that makes ONNX of a library's models is not installed."""

    code = "missing-converter"


class ConversionFailed(GitmodelError):
    """A library's model cannot be made into ONNX; the message has the converter's own words."""

    code = "conversion-failed"


class ConversionDiffers(GitmodelError):
    """The ONNX model made of a library's model gives something else."""

    code = "conversion-differs"
    exit_code = ExitCode.INCOMPATIBLE


class Converter(Protocol):
    """One module per library; see the table above."""

    def convert(self, model: Any, example: Any, path: Path) -> Source:
        """The source of the ONNX file that it writes to ``path``, with what the library gives for ``example`` as its
        cases. Raises GitmodelError, and whatever the library raises."""
        ...


def convert(model: object, example: object = None) -> Source:
    """The source of a library's model. Raises InvalidModel for any other object, MissingConverter, ConversionFailed."""
    lineage = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(model).__mro__}
    found = next((module for known, module in CONVERTERS.items() if known in lineage), "")
    what = type(model).__name__
    if not found:
        raise InvalidModel(
            f"a {type(model).__module__}.{what} is no model that can be saved",
            hint="give a file, an onnx.ModelProto, numpy arrays by name, or a PyTorch, scikit-learn or Keras model",
        )
    module: Converter = import_module(found)
    # What is mapped of the files stays readable when the folder is gone. The warnings are for authors of exporters:
    # whether the result is right is checked here.
    with tempfile.TemporaryDirectory(prefix="gitmodel-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return module.convert(model, example, Path(folder) / f"{what}.onnx")
        except GitmodelError:
            raise
        except Exception as error:  # converters share no base but Exception
            raise ConversionFailed(
                f"no ONNX can be made of the {what} ({reason(error)})",
                hint="export it yourself, and save the file or the ModelProto",
            ) from error


def exported(path: Path) -> tuple[Source, Signature]:
    """What a converter wrote. The file is gone soon, so nobody is to look for it again."""
    source = replace(onnx_format.read(path), files=())
    return source, onnx_format.signature_of(source.graph, str(path))


def need(package: str) -> Any:
    """The package a conversion needs. Raises MissingConverter."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingConverter(
            f"{package} is needed to make ONNX of this model and cannot be imported ({first_line(error)})",
            hint=f"pip install {package}",
        ) from error


def reason(error: BaseException) -> str:
    """The first line of what went wrong at the root: exporters wrap it in advice of many lines."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"[:300]  # type: ignore[arg-type]  # any error has a text


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What nested mappings, tuples and lists hold, with the keys and places that lead there."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield from leaves(held, (*path, str(key)))
    elif isinstance(value, (tuple, list)):
        for key, held in zip(getattr(value, "_fields", range(len(value))), value, strict=True):
            yield from leaves(held, (*path, str(key)))
    else:
        yield path, value


def output_name(path: tuple[str, ...]) -> str:
    """How an output is called that stands there: its key, ``output`` when it is the only one, ``output_1`` for the second."""
    numbered = not path or path[0].isdecimal()
    return "_".join(("output", *path) if numbered else path)


def rename_dims(graph: Any, names: Mapping[str, str]) -> None:
    """Gives symbolic dimensions of the graph's values other names."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def check(source: Source, run: Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]], what: str) -> None:
    """Holds the converted model, which ``run`` runs, against what its library gave. Raises ConversionDiffers."""
    for case in source.cases:
        try:
            outputs = run(case.inputs)
        except GitmodelError as error:
            raise ConversionDiffers(
                f"the ONNX model made of {what} does not take the example ({error.message})",
                hint="export it yourself, and save the file",
            ) from error
        for name, expected in case.outputs.items():
            if said := _difference(expected, outputs[name]):
                raise ConversionDiffers(
                    f"the ONNX model made of {what} does not give what {what} gives: '{name}' {said}",
                    hint="export it yourself in another way, and save the file",
                )


def _difference(expected: Any, given: Any) -> str:
    """How far ``given`` is from ``expected``, in words; '' within the tolerance."""
    import numpy as np

    if isinstance(given, list):
        if not isinstance(expected, list) or len(expected) != len(given):
            return f"is a list of {len(given)}, which the library does not give"
        return next(filter(None, map(_difference, expected, given)), "")
    ours, theirs = np.asarray(given), np.asarray(expected)
    # A column for a row of values, or the other way round, is the same to both.
    if ours.squeeze().shape != theirs.squeeze().shape:
        return f"has the shape {list(ours.shape)}, the library's has {list(theirs.shape)}"
    ours, theirs = ours.reshape(-1), theirs.reshape(-1)
    if ours.dtype.kind in "OUS" or theirs.dtype.kind in "OUS":
        wrong = ours.astype(str) != theirs.astype(str)
        return f"differs in {wrong.sum()} of {wrong.size} texts" if wrong.any() else ""
    return _distance(ours, theirs)


def _distance(ours: np.ndarray, theirs: np.ndarray) -> str:
    import numpy as np

    inexact = "f" in ours.dtype.kind + theirs.dtype.kind
    half = "float16" if ours.dtype.name == "float16" else "float32"
    rtol, atol = DEFAULT_TOLERANCES[half] if inexact else (0.0, 0.0)
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    # Where large values cancel out, the small one left over is as inexact as they were.
    scale = max(1.0, float(np.max(np.abs(b[finite]), initial=0.0)))
    wrong = ~np.isclose(a, b, rtol=rtol, atol=atol * scale, equal_nan=True)
    if not wrong.any():
        return ""
    if (wrong & ~finite).any():
        return f"is not finite in other places ({(wrong & ~finite).sum()} of {wrong.size} values)"
    return f"differs by up to {np.max(np.abs(a - b)[wrong]):.3g} ({wrong.sum()} of {wrong.size} values)"
