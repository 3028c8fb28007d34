"""Golden cases on disk: ONNX's own ``test_data_set_N`` layout, and npz files that cases are taken from."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitmodel.bundle.folder import Folder
from gitmodel.bundle.golden import SLICE, GoldenCase, Slice
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.errors import GitmodelError
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.dtypes import is_native
from gitmodel.formats.source import first_line, map_file

if TYPE_CHECKING:
    import numpy as np

_PATH = re.compile(
    r"(?P<case>(?P<group>[^/]+)/test_data_set_(?P<number>[0-9]{1,9}))/(?P<side>input|output)_(?P<index>[0-9]{1,9})\.pb"
)
_MEMBER = re.compile(r"[\w.:-]+\.npy")
MAX_CASES = 256
MAX_NPZ_BYTES = 1 << 30


class InvalidGolden(GitmodelError):
    """Golden cases that do not fit the model, or a file that holds none."""

    code = "invalid-golden"


def read(folder: Folder, prefix: str, signature: Signature, where: str) -> list[GoldenCase]:
    """All cases below ``prefix``, by name, each with the slice its group stands for. Tensors bind by their own name, else
    by index. Raises InvalidModel, InvalidYaml."""
    found: dict[str, dict[str, list[tuple[int, str]]]] = {}
    order: dict[str, tuple[str, int]] = {}
    for path in folder.files(prefix):
        match = _PATH.fullmatch(path.removeprefix(f"{prefix}/"))
        if match:
            sides = found.setdefault(match["case"], {"input": [], "output": []})
            sides[match["side"]].append((int(match["index"]), path))
            order[match["case"]] = (match["group"], int(match["number"]))
    slices = {group: _slice(folder, f"{prefix}/{group}/{SLICE}", where) for group, _ in order.values()}
    cases = []
    for case in sorted(found, key=order.__getitem__):
        group, number = order[case]
        bound = {
            side: _bind(folder, sorted(found[case][side]), specs, where)
            for side, specs in (("input", signature.inputs), ("output", signature.outputs))
        }
        cases.append(GoldenCase(f"{group}/{number}", bound["input"], bound["output"], slices[group]))
    return cases


def _slice(folder: Folder, path: str, where: str) -> Slice | None:
    data = folder.read(path)
    return None if data is None else Slice.from_yaml(data, f"{where}: {path}")


def write(group: str, cases: Sequence[GoldenCase], first: int = 0) -> dict[str, bytes]:
    """The files of these cases by path, relative to the golden folder, numbered from ``first``."""
    files = {}
    for number, case in enumerate(cases, first):
        for side, tensors in (("input", case.inputs), ("output", case.outputs)):
            for index, (name, values) in enumerate(tensors.items()):
                files[f"{group}/test_data_set_{number}/{side}_{index}.pb"] = onnx_format.encode_tensor(name, values)
    return files


def from_npz(
    path: Path, signature: Signature, run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
) -> list[GoldenCase]:
    """Cases from an npz whose arrays are named after the model's inputs and, if recorded, its outputs.

    When every input has a free first dimension each row is a case of batch 1; else the file is one case. Outputs that
    are not in the file are what ``run`` gives. Raises InvalidGolden.
    """
    arrays = _load_npz(path)
    _check_names(arrays, signature, str(path))
    rows = enumerate(_rows(path, arrays, signature))
    return [case_of(f"{path.stem}/{number}", row, signature, run, str(path)) for number, row in rows]


def case_of(
    name: str,
    row: Mapping[str, np.ndarray],
    signature: Signature,
    run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    where: str,
) -> GoldenCase:
    """A case from arrays by the names of the model's tensors; what they lack of its outputs is what ``run`` gives. Raises
    InvalidGolden."""
    _check_names(row, signature, where)
    inputs = {s.name: _fit(where, s, row[s.name]) for s in signature.inputs if s.name in row}
    recorded = {s.name: _fit(where, s, row[s.name]) for s in signature.outputs if s.name in row}
    outputs = recorded if len(recorded) == len(signature.outputs) else {**run(inputs), **recorded}
    refuse_collections(where, outputs)
    return GoldenCase(name, inputs, outputs)


def _check_names(row: Mapping[str, np.ndarray], signature: Signature, where: str) -> None:
    known = {spec.name for spec in (*signature.inputs, *signature.outputs)}
    if strange := sorted(set(row) - known):
        raise InvalidGolden(
            f"{where} has an array '{strange[0]}' the model has no tensor for",
            hint=f"the model has {', '.join(sorted(known))}",
        )
    if missing := [s.name for s in signature.inputs if not s.optional and s.name not in row]:
        raise InvalidGolden(f"{where} lacks the input '{missing[0]}'", hint="name the arrays after the model's inputs")


def refuse_collections(where: str, outputs: Mapping[str, Any]) -> None:
    """Raises InvalidGolden for an output that is no tensor."""
    for name, value in outputs.items():
        if not hasattr(value, "shape"):
            raise InvalidGolden(
                f"{where}: output '{name}' is a sequence or map, which cannot be recorded",
                hint="export it as a tensor (skl2onnx: zipmap=False)",
            )


def _rows(path: Path, arrays: Mapping[str, np.ndarray], signature: Signature) -> list[dict[str, np.ndarray]]:
    batched = all(spec.shape and not isinstance(spec.shape[0], int) for spec in signature.inputs)
    if not batched:
        return [dict(arrays)]
    counts = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    if len(counts) != 1 or -1 in counts:
        raise InvalidGolden(f"{path}: the arrays differ in their first dimension", hint="give each one row per case")
    count = counts.pop()
    if not 0 < count <= MAX_CASES:
        raise InvalidGolden(
            f"{path} has {count} rows", hint=f"choose 1 to {MAX_CASES} that matter (16 or more are good)"
        )
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)]


def _fit(where: str, spec: TensorSpec, values: np.ndarray) -> np.ndarray:
    """The array in the type the model declares; refused when that would change more than its precision."""
    import numpy as np

    text = spec.dtype == "string"
    castable = not text and is_native(spec.dtype) and np.can_cast(values.dtype, spec.dtype, "same_kind")
    if not (values.dtype.kind in "US" if text else castable):
        raise InvalidGolden(
            f"{where}: '{spec.name}' is {values.dtype}, the model has {spec.dtype}", hint="cast it before saving"
        )
    if text:
        return values.astype(object)
    with np.errstate(over="ignore"):
        fitted = np.asarray(values, spec.dtype, order="C")
    kept = np.isfinite(fitted) == np.isfinite(values) if fitted.dtype.kind in "fc" else fitted == values
    if not np.all(kept):
        raise InvalidGolden(
            f"{where}: '{spec.name}' has values that {spec.dtype} cannot hold", hint="give what the model accepts"
        )
    return fitted


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    import numpy as np

    map_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if strange := [m.filename for m in members if not _MEMBER.fullmatch(m.filename)]:
                raise InvalidGolden(f"{path} has a member {strange[0][:60]!r}", hint="write it with numpy.savez")
            if (total := sum(m.file_size for m in members)) > MAX_NPZ_BYTES:
                raise InvalidGolden(f"{path} unpacks to {total} bytes", hint=f"at most {MAX_NPZ_BYTES} are read")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member is no array")
    except InvalidGolden:
        raise
    except Exception as error:  # zipfile, zlib and numpy's header parser share no base but Exception
        raise InvalidGolden(
            f"{path} is no npz of plain arrays ({first_line(error)})", hint="write it with numpy.savez"
        ) from None
    return arrays


def _bind(
    folder: Folder, paths: Sequence[tuple[int, str]], specs: Sequence[TensorSpec], where: str
) -> dict[str, np.ndarray]:
    tensors = {}
    for index, path in paths:
        name, values = onnx_format.decode_tensor(folder.read(path) or b"", f"{where}: {path}")
        if not name:
            name = specs[index].name if index < len(specs) else f"#{index}"
        tensors[name] = values
    return tensors
