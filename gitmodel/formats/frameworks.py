"""Models of PyTorch, scikit-learn and Keras: which library an object is of, and whether the ONNX model made of it does what
the library does. The conversions themselves are one module each, named in one table.

An object is known by the modules of its classes, so that asking imports nothing.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from gitmodel.bundle.card import DEFAULT_AGREEMENT, DEFAULT_TOLERANCES
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
        except ImportError as error:
            raise MissingConverter(
                f"a package is missing that makes ONNX of the {what} ({first_line(error)})", hint="install it"
            ) from error
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
    """What went wrong at the root, in a line: exporters wrap it in advice of many."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    said = lines[-1] if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {said}"[:300]


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
        gaps = [_gap(name, outputs[name], expected) for name, expected in case.outputs.items()]
        # A choice falls the other way where its scores are as good as equal.
        ties = any(gap.inexact for gap in gaps) and all(gap.within for gap in gaps if gap.inexact)
        for gap in gaps:
            if not gap.within and not (ties and not gap.inexact and gap.agreement >= DEFAULT_AGREEMENT):
                raise ConversionDiffers(
                    f"the ONNX model made of {what} does not give what {what} gives: '{gap.name}' {gap.words}",
                    hint="export it yourself in another way, and save the file",
                )


class _Gap(Struct, frozen=True):
    """How far one output is from what the library gives: the share of values that agree, and the largest difference."""

    name: str
    agreement: float = 0.0
    largest: float = math.inf
    inexact: bool = True
    words: str = ""

    @property
    def within(self) -> bool:
        return self.agreement == 1


def _gap(name: str, given: Any, expected: Any) -> _Gap:
    import numpy as np

    if isinstance(given, list):  # a sequence; scikit-learn gives one for several labels at once
        pieces = expected if isinstance(expected, list) and len(expected) == len(given) else []
        inner = [_gap(name, one, other) for one, other in zip(given, pieces, strict=False)]
        return min(inner, key=lambda gap: gap.agreement, default=_Gap(name, words=f"is a list of {len(given)}"))
    ours, theirs = np.asarray(given), np.asarray(expected)
    if theirs.ndim == 1 and ours.shape == (len(theirs), 2):  # the score of one class of two, and ONNX has it for both
        theirs = np.stack([-theirs, theirs], axis=1)
    # A column for a row of values, or the other way round, is the same to both.
    if ours.squeeze().shape != theirs.squeeze().shape:
        return _Gap(name, words=f"has the shape {list(ours.shape)}, not {list(theirs.shape)}")
    ours, theirs = ours.reshape(-1), theirs.reshape(-1)
    if ours.dtype.kind in "OUS" or theirs.dtype.kind in "OUS":
        close, gaps = ours.astype(str) == theirs.astype(str), np.zeros(0)
    else:
        close, gaps = _compared(ours, theirs)
    largest = float(np.max(gaps, initial=0.0, where=~np.isnan(gaps)))
    agreement = float(np.mean(close)) if close.size else 1.0
    words = f"differs in {np.sum(~close)} of {close.size} values" + (f", by up to {largest:.3g}" if largest else "")
    return _Gap(name, agreement, largest, "f" in ours.dtype.kind + theirs.dtype.kind, words)


def _compared(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which values are close, and how far they are apart."""
    import numpy as np

    half = "float16" if ours.dtype.name == "float16" else "float32"
    inexact = "f" in ours.dtype.kind + theirs.dtype.kind
    rtol, atol = DEFAULT_TOLERANCES[half] if inexact else (0.0, 0.0)
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    # Where large values cancel out, the small one left over is as inexact as they were.
    scale = max(1.0, float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b))))
    with np.errstate(invalid="ignore"):
        return np.isclose(a, b, rtol=rtol, atol=atol * scale, equal_nan=True), np.abs(a - b)
