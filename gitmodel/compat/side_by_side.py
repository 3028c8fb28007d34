"""Runs cases through OLD and NEW at the same time, several in one call where rows are independent by the signature."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.errors import GitmodelError

if TYPE_CHECKING:
    import numpy as np

#: How many cases, and bytes of inputs, go into one call: what runs in between may be much larger than its inputs.
STACK, STACK_BYTES = 16, 1 << 20
#: Bytes of answers that are kept to be given again.
RECALLED = 64 << 20

Arrays = Mapping[str, "np.ndarray"]
Call = Callable[[Arrays], Arrays]


class Runs(Protocol):
    """What replay needs of a session (runtime.Session)."""

    def run(self, inputs: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]: ...


@dataclass
class Recalling:
    """A session that gives the answer it gave before to the same inputs, as long as all answers together are small."""

    session: Runs
    _given: dict[bytes, dict[str, np.ndarray]] = field(default_factory=dict)
    _bytes: int = 0

    def run(self, inputs: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        key = key_of(inputs) if outputs is None else b""
        if key in self._given:
            return self._given[key]
        answer = self.session.run(inputs, outputs)
        size = sum(getattr(values, "nbytes", RECALLED + 1) for values in answer.values())
        if key and self._bytes + size <= RECALLED:
            self._given[key] = answer
            self._bytes += size
        return answer


def key_of(inputs: Arrays) -> bytes:
    """Names these inputs; empty for words, which have no bytes of their own."""
    import numpy as np

    digest = hashlib.sha256()
    for name, values in inputs.items():
        if values.dtype.hasobject:
            return b""
        digest.update(repr((name, values.dtype.str, values.shape)).encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.digest()


class Answer(Struct, frozen=True):
    """What both sides gave for one case: outputs by name, or the refusal."""

    case: GoldenCase
    before: Arrays | GitmodelError
    after: Arrays | GitmodelError


def one_by_one(old: Runs, new: Runs, cases: Iterable[GoldenCase], call: Call) -> Iterator[Answer]:
    """The answers to each case by itself; ``call`` turns OLD's inputs into NEW's. Raises MemoryError."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="replay") as pool:
        for case in cases:
            try:
                first = pool.submit(_try, old, case.inputs)
            except RuntimeError as error:  # there was no memory for the thread
                raise MemoryError from error
            after = _try(new, call(case.inputs))
            yield Answer(case, first.result(), after)


def stacked(old: Runs, new: Runs, cases: Iterable[GoldenCase], call: Call, signature: Signature) -> Iterator[Answer]:
    """The same, with neighbouring cases as the rows of one call: a large model reads its weights once for all of them.

    Both sides get the same rows, so what differs is the model. Cases that do not go together, or are refused
    together, run one by one.
    """
    waiting = iter(cases)
    while stacks := _next_stacks(waiting, signature):
        for stack in stacks:
            yield from _split(old, new, stack, call)


def first_calls(cases: Iterable[GoldenCase], signature: Signature) -> list[Arrays]:
    """The inputs that ``stacked`` gives to both sides first."""
    return [_joined(stack) for stack in _next_stacks(iter(cases), signature)]


def _next_stacks(waiting: Iterator[GoldenCase], signature: Signature) -> list[list[GoldenCase]]:
    group = list(itertools.islice(waiting, STACK))
    return _stacks(group, signature) if has_rows(signature) else [[case] for case in group]


def _joined(stack: list[GoldenCase]) -> Arrays:
    """The cases as the rows of one call."""
    import numpy as np

    if len(stack) == 1:
        return stack[0].inputs
    return {name: np.concatenate([case.inputs[name] for case in stack]) for name in stack[0].inputs}


def _split(old: Runs, new: Runs, stack: list[GoldenCase], call: Call) -> Iterator[Answer]:
    import numpy as np

    if len(stack) > 1:
        rows = np.cumsum([_rows(case) for case in stack])
        [answer] = one_by_one(old, new, [GoldenCase("", _joined(stack), {})], call)
        before, after = (_by_case(side, rows) for side in (answer.before, answer.after))
        if before is not None and after is not None:
            yield from (Answer(*parts) for parts in zip(stack, before, after, strict=True))
            return
    yield from one_by_one(old, new, stack, call)


def _by_case(outputs: Arrays | GitmodelError, rows: np.ndarray) -> list[Arrays] | None:
    """Each case's own rows of the outputs; None when they have other rows than the inputs."""
    if isinstance(outputs, GitmodelError):
        return None
    bounds = list(itertools.pairwise([0, *map(int, rows)]))
    if any(not getattr(values, "shape", ()) or len(values) != bounds[-1][1] for values in outputs.values()):
        return None
    return [{name: values[start:end] for name, values in outputs.items()} for start, end in bounds]


def _stacks(cases: Iterable[GoldenCase], signature: Signature) -> list[list[GoldenCase]]:
    """The cases in runs that fit together: same inputs but for their number of rows. One that is more than the required
    inputs, each with as many rows, stays by itself: an optional input may be anything."""
    required = {spec.name for spec in signature.inputs if not spec.optional}
    stacks: list[list[GoldenCase]] = []
    for case in cases:
        same_rows = len({values.shape[:1] for values in case.inputs.values()}) == 1
        fits = stacks and case.inputs.keys() == required and same_rows and _kind(stacks[-1][0]) == _kind(case)
        if fits and sum(map(_bytes, stacks[-1])) + _bytes(case) <= STACK_BYTES:
            stacks[-1].append(case)
        else:
            stacks.append([case])
    return stacks


def has_rows(signature: Signature) -> bool:
    """Whether every input and output begins with the same free dimension."""
    specs = [spec for spec in (*signature.inputs, *signature.outputs) if not spec.optional]
    first = {spec.shape[0] if spec.kind == "tensor" and spec.shape else None for spec in specs}
    return len(first) == 1 and isinstance(next(iter(first)), str)


def _kind(case: GoldenCase) -> dict[str, tuple[object, ...]]:
    return {name: (values.dtype, values.ndim, values.shape[1:]) for name, values in case.inputs.items()}


def _rows(case: GoldenCase) -> int:
    return len(next(iter(case.inputs.values())))


def _bytes(case: GoldenCase) -> int:
    return sum(values.nbytes for values in case.inputs.values())


def _try(side: Runs, inputs: Arrays) -> Arrays | GitmodelError:
    try:
        return side.run(inputs)
    except GitmodelError as error:
        return error
