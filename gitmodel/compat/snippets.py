"""A few lines of Python that show a break to whoever runs them: OLD's call made on NEW, or one case on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.compat.bridge import Bridge
from gitmodel.compat.changes import Change

if TYPE_CHECKING:
    import numpy as np

#: How many elements an array may have to be written out.
_WRITTEN = 32
_INDENT = "    "


class Calls(Struct, frozen=True):
    """What the cases were run with: OLD's own signature, and the bridge over which its calls reached NEW."""

    old: Bundle
    new: Bundle
    signature: Signature
    bridge: Bridge = field(default_factory=Bridge)


def attach(changes: Sequence[Change], cases: Callable[[], Iterable[GoldenCase]], calls: Calls) -> list[Change]:
    """The changes, those that a case shows with a ``snippet`` among their args; ``cases`` gives the cases once more."""
    wanted = {str(name) for change in changes if (name := _case_of(change))}
    found: dict[str, GoldenCase] = {}
    for case in cases() if wanted else ():
        if case.name in wanted:
            found[case.name] = case
        if len(found) == len(wanted):
            break
    return [_with_snippet(change, found.get(_case_of(change)), calls) for change in changes]


def _case_of(change: Change) -> str:
    """The case that shows the change; empty where none does."""
    if "witness" in change.args:
        return str(change.args.get("case") or change.args.get("worst", ""))
    differs = change.at.startswith("outputs.") and change.kind != "golden-numeric-noise"
    return str(change.args.get("worst", "")) if differs else ""


def _with_snippet(change: Change, case: GoldenCase | None, calls: Calls) -> Change:
    if case is None:
        return change
    if change.kind == "new-error-on-accepted-input":
        text = refused(case, calls, calls.bridge)
    elif "witness" in change.args:
        text = refused(case, calls, Bridge(), [spec.name for spec in calls.signature.outputs])
    else:
        text = differing(case, change.at.removeprefix("outputs."), float(change.args.get("max_abs", math.inf)), calls)
    return replace(change, args={**change.args, "snippet": text})


def refused(case: GoldenCase, calls: Calls, bridge: Bridge, outputs: Sequence[str] = ()) -> str:
    """OLD's call, made on NEW over ``bridge``, for these outputs or all of them; the last line raises what NEW answers."""
    head, given = _inputs(case, calls.old, bridge)
    asked = repr(list(outputs) or None)
    # ONNX Runtime takes outputs first, gitmodel's session the inputs.
    last = f"new.run({asked}, inputs)" if calls.new.file is not None else f"new.run(inputs, {asked})"
    return _script([*head, _session("new", calls.new)], [*given, last])


def differing(case: GoldenCase, output: str, size: float, calls: Calls) -> str:
    """One case on both sides; prints one output of each, and how far they are apart unless ``size`` is infinite."""
    head, given = _inputs(case, calls.old, Bridge())
    bridge, feed = calls.bridge, "inputs"
    # Flags cannot be subtracted, and what has no sign comes out huge.
    floats = [spec.name for spec in calls.signature.outputs if spec.kind == "tensor" and spec.dtype.startswith("float")]
    if bridge.inputs or bridge.casts:
        feed = "new_inputs"
        given = [*given, f"{feed} = {{{_bridged(case, bridge, 'inputs')}}}"]
    last = [
        _run("before", "old", calls.old, "inputs", output),
        _run("after", "new", calls.new, feed, bridge.outputs.get(output, output)),
        "print(before, after, sep='\\n')",
        *(["print(np.abs(after - before).max())"] if output in floats and math.isfinite(size) else []),
    ]
    return _script([*head, _session("old", calls.old), _session("new", calls.new)], [*given, *last])


def _bridged(case: GoldenCase, bridge: Bridge, source: str) -> str:
    """The items of a dictionary: the same values under NEW's names and in NEW's types."""
    parts = []
    for name in case.inputs:
        cast = f".astype({bridge.casts[name]!r})" if name in bridge.casts else ""
        parts.append(f"{bridge.inputs.get(name, name)!r}: {source}[{name!r}]{cast}")
    return ", ".join(parts)


def _run(variable: str, session: str, bundle: Bundle, feed: str, output: str) -> str:
    if bundle.file is not None:
        return f"{variable} = {session}.run([{output!r}], {feed})[0]"
    return f"{variable} = {session}.run({feed})[{output!r}]"


def _session(variable: str, bundle: Bundle) -> str:
    """A bare file needs nothing but ONNX Runtime; the rest comes out of the repository."""
    if bundle.file is not None:
        return f"{variable} = onnxruntime.InferenceSession({str(bundle.file)!r})"
    return f"{variable} = gitmodel.load({bundle.label!r}).session"


def _script(opened: Sequence[str], rest: Sequence[str]) -> str:
    body = [*opened, *rest]
    used = [name for name in ("gitmodel", "onnxruntime") if any(f"{name}." in line for line in opened)]
    imports = [f"import {name}" for name in used]
    imports += ["import numpy as np"] if any("np." in line for line in body) else []
    origin = [line for line in opened if line.startswith("from ")]
    return "\n".join([*sorted(imports), *origin, *(line for line in body if line not in origin)])


def _inputs(case: GoldenCase, old: Bundle, bridge: Bridge) -> tuple[list[str], list[str]]:
    """Lines that go first, and those that make ``inputs``: written out when they are small, else drawn or read again."""
    written = {name: _literal(values) for name, values in bridge.call(case.inputs).items()}
    if all(written.values()):
        items = [f"{name!r}: {text}" for name, text in written.items()]
        whole = f"inputs = {{{', '.join(items)}}}"
        return [], [whole] if len(whole) <= 110 else ["inputs = {", *(f"{_INDENT}{item}," for item in items), "}"]
    return _again(case.name, old, f"inputs = {{{_bridged(case, bridge, 'case.inputs')}}}")


def _again(name: str, old: Bundle, last: str) -> tuple[list[str], list[str]]:
    """The case itself, from where it came from."""
    label = str(old.file) if old.file is not None else old.label
    model = f"model = gitmodel.load({label!r})"
    if name.startswith("generated/"):
        source = "from gitmodel.compat import generate"
        cases = "generate.cases(model.signature)"
    else:
        source = "from gitmodel.formats import goldens"
        cases = f"goldens.read(model.bundle.folder, 'golden', model.signature, {label!r})"
    return [source, model], [f"cases = {cases}", f"case = next(case for case in cases if case.name == {name!r})", last]


def _literal(values: Any) -> str:
    """An array as one writes it; empty when it is too large, or of a type numpy alone cannot write."""
    import numpy as np

    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biufO":
        return ""
    dtype = "object" if values.dtype.kind == "O" else values.dtype.name
    shape = repr(values.shape)
    for number, maker in ((0, "zeros"), (1, "ones")):
        # By its bytes: minus zero is not zero.
        if dtype != "object" and values.tobytes() == np.full(values.shape, number, values.dtype).tobytes():
            return f"np.{maker}({shape}, {dtype!r})"
    if values.size > _WRITTEN or not _is_plain(values):
        return ""
    return f"np.array({values.tolist()!r}, {dtype!r})"


def _is_plain(values: np.ndarray) -> bool:
    """Whether ``repr`` of the values is Python: NaN and infinities are not, nor are objects other than texts."""
    import numpy as np

    if values.dtype.kind == "O":
        return all(isinstance(value, str) for value in values.reshape(-1).tolist())
    return bool(np.all(np.isfinite(values)))
