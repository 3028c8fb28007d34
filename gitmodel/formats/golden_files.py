"""Where golden cases stand in a bundle and which files they are: the names that commands use for them, sizes, equal inputs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gitmodel.bundle import acceptance
from gitmodel.bundle.acceptance import ACCEPTED, Acceptance
from gitmodel.bundle.bundle import NEW
from gitmodel.bundle.folder import DiskFolder, Folder
from gitmodel.bundle.golden import SLICE, GoldenCase, Slice
from gitmodel.bundle.signature import Signature
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.goldens import InvalidGolden

if TYPE_CHECKING:
    import numpy as np

#: What a model may have of cases, all groups together, and of bytes: they live in Git and every check runs them all.
MAX_CASES, MAX_BYTES = 256, 32 << 20
#: From this size on, in bytes, a clone feels it.
LARGE_BYTES = 1 << 20
#: Files of outputs that wait for a review, as Git's globs have it, relative to the golden folder.
PENDING = f"*/test_data_set_*/output_*.pb{NEW}"
_CASE = re.compile(r"(?P<place>(?P<group>[^/]+)/test_data_set_(?P<number>[0-9]{1,9}))/(?:input|output)_[0-9]{1,9}\.pb")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,99}")
_TRAFFIC = re.compile(
    r"(?:(?P<above>.*)/)?test_data_set_(?P<number>[0-9]{1,9})/(?P<side>input|output)_(?P<index>[0-9]{1,9})\.pb"
)


def places(folder: Folder, prefix: str) -> dict[str, str]:
    """The folder of each case below ``prefix`` by the case's name (``held-out/3``), in their order."""
    found = (_CASE.fullmatch(path.removeprefix(f"{prefix}/")) for path in folder.files(prefix))
    cases = {(match["group"], int(match["number"])): match["place"] for match in found if match}
    return {f"{group}/{number}": place for (group, number), place in sorted(cases.items())}


def group_of(case: str) -> str:
    return case.rpartition("/")[0]


def next_number(names: Mapping[str, str], group: str) -> int:
    """The number the next case of a group gets."""
    return max((int(name.rpartition("/")[2]) for name in names if group_of(name) == group), default=-1) + 1


def check_group(name: str, hint: str = "name it with --group") -> str:
    """Returns ``name`` if it can be a group's folder. Raises InvalidGolden."""
    if not _GROUP.fullmatch(name):
        raise InvalidGolden(f"'{name[:60]}' is no name for a group of golden cases", hint=hint)
    return name


def side_files(place: str, side: str, tensors: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The files of one ``side`` (input, output) of the case at ``place``, by path."""
    encoded = (onnx_format.encode_tensor(name, values) for name, values in tensors.items())
    return {f"{place}/{side}_{index}.pb": data for index, data in enumerate(encoded)}


def fingerprint(tensors: Mapping[str, np.ndarray]) -> str:
    """One digest for these tensors by name, type, shape and bytes."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(hashlib.sha256(onnx_format.encode_tensor(name, tensors[name])).digest())
    return whole.hexdigest()


def slice_of(folder: Folder, prefix: str, group: str, where: str) -> Slice | None:
    """What part of the callers a group stands for, if it says so. Raises InvalidYaml."""
    path = f"{prefix}/{group}/{SLICE}"
    data = folder.read(path)
    return None if data is None else Slice.from_yaml(data, f"{where}: {path}")


def sizes(folder: Folder, prefix: str) -> dict[str, int]:
    """The bytes of each case's files by its name."""
    by_place = {place: name for name, place in places(folder, prefix).items()}
    found = dict.fromkeys(by_place.values(), 0)
    for path in folder.files(prefix):
        match = _CASE.fullmatch(path.removeprefix(f"{prefix}/"))
        if match and match["place"] in by_place:
            found[by_place[match["place"]]] += len(folder.read(path) or b"")
    return found


def size_of(cases: Iterable[GoldenCase]) -> int:
    """About how many bytes the files of these cases will have."""
    return sum(values.nbytes for case in cases for side in (case.inputs, case.outputs) for values in side.values())


def check_total(label: str, cases: int, size: int) -> None:
    """Raises InvalidGolden when a model would have more cases, or bytes of them, than one may."""
    if cases > MAX_CASES:
        raise InvalidGolden(
            f"{label} would have {cases} golden cases, and {MAX_CASES} is the most",
            hint="choose those that matter: --limit takes fewer, 'git rm -r' on a group's folder makes room",
        )
    if size > MAX_BYTES:
        raise InvalidGolden(
            f"the golden cases of {label} would be {size >> 20} MiB, and {MAX_BYTES >> 20} MiB is the most",
            hint="they live in Git: take fewer rows",
        )


def traffic(root: Path, model: str, signature: Signature) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(where, tensors by name) of every request that a server recorded below ``root``, in their order.

    ``root`` is the folder given to the server, which has one of the model in it, or any folder further down. Raises
    InvalidGolden when there is none, InvalidModel for a damaged one.
    """
    base = root / model if (root / model).is_dir() else root.absolute()
    one = base.name if _TRAFFIC.fullmatch(f"{base.name}/input_0.pb") else ""
    folder = DiskFolder(base.parent if one else base)
    found: dict[tuple[str, int], list[tuple[str, int, str]]] = {}
    for path in folder.files(one):
        if match := _TRAFFIC.fullmatch(path):
            key = (match["above"] or "", int(match["number"]))
            found.setdefault(key, []).append((match["side"], int(match["index"]), path))
    if not found:
        raise InvalidGolden(
            f"{root} has no recorded requests of '{model}'", hint="'gitmodel serve --record FOLDER' writes them"
        )
    specs = {"input": signature.inputs, "output": signature.outputs}
    for key in sorted(found):
        tensors = {}
        for side, index, path in sorted(found[key]):
            name, values = onnx_format.decode_tensor(folder.read(path) or b"", str(folder.root / path))
            known = specs[side][index].name if index < len(specs[side]) else f"#{index}"
            tensors[name or known] = values
        yield str((folder.root / found[key][0][2]).parent), tensors


def accepted(folder: Folder, prefix: str, group: str, where: str) -> tuple[Acceptance, ...]:
    """Who accepted outputs of a group's cases, and why. Raises InvalidYaml."""
    path = f"{prefix}/{group}/{ACCEPTED}"
    data = folder.read(path)
    return () if data is None else acceptance.read(data, f"{where}: {path}")
