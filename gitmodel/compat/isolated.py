"""Models in sandboxes, as the judge sees them: each has a process to itself, and whatever happens there is an error here."""

from __future__ import annotations

import contextlib
import glob
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import Signature
from gitmodel.compat.opening import CannotOpen, Opened, want_of_memory
from gitmodel.errors import GitmodelError
from gitmodel.files import StorageFailed
from gitmodel.formats.source import Description, InvalidModel, UnsafeModel
from gitmodel.runtime import LoadFailed, RunFailed
from gitmodel.sandbox.failures import OutOfMemory, Refused, SandboxIncomplete
from gitmodel.sandbox.limits import Limits

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.sandbox.parent import Child

_MODULE, _WARM = "gitmodel.compat.inside", "warm"
#: Errors that a child may raise here, by code.
_ERRORS: Mapping[str, type[GitmodelError]] = {
    kind.code: kind for kind in (InvalidModel, UnsafeModel, LoadFailed, RunFailed, StorageFailed)
}
#: What a child may write to disk for a file of this many bytes, while it unpacks and before it runs anything.
_FREE_BYTES, _RATIO = 1 << 30, 200
_STRIKES = 2


@dataclass
class Model:
    """A model that runs in a child, to be used as a ``runtime.Session``."""

    opened: Opened
    path: Path
    options: Mapping[str, Any]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    _child: Child = field(repr=False)
    #: Why it could not answer, where that was for want of memory, and how often.
    starved: str = ""
    _times: int = 0

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Raises RunFailed, and SandboxFailed once the child is gone."""
        if self._times == _STRIKES:  # each takes seconds
            raise RunFailed(self.starved)
        try:
            with _as_ours():
                said = self._child.ask("run", inputs=dict(inputs), outputs=list(outputs) if outputs else None)
                answer = {str(name): value for name, value in said.items()}
        except OutOfMemory as error:
            self.starved, self._times = str(error), self._times + 1
            raise RunFailed(error.message, hint=error.hint) from None
        return answer

    def ask(self, call: str, /, **args: Any) -> Any:
        with _as_ours():
            return self._child.ask(call, **args)

    def again(self, **options: Any) -> Again:
        """The same model with other options, in the same child. Raises LoadFailed, SandboxFailed."""
        self.ask("load_again", path=str(self.path), options={**self.options, **options})
        return Again(self)

    @property
    def limits(self) -> Limits:
        return self._child.limits

    @property
    def failure(self) -> str:
        """Why its child is gone; '' where it is not."""
        return str(self._child.failure or "")


class Again(Struct, frozen=True):
    """A model as it was opened last, with other options; ``Model.again`` makes it, and the next one ends it."""

    model: Model

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Raises RunFailed, and SandboxFailed once the child is gone."""
        try:
            answer: dict[str, Any] = self.model.ask("run_again", inputs=dict(inputs), outputs=list(outputs or ()))
        except OutOfMemory as error:
            raise RunFailed(error.message, hint=error.hint) from None
        return answer


@dataclass
class Models:
    """The children of one check. ``require`` refuses a machine without a whole sandbox; otherwise ``told`` hears of it."""

    limits: Limits = field(default_factory=Limits)
    require: bool = False
    told: Callable[[str], None] | None = None
    _awake: list[Child] = field(default_factory=list, repr=False)
    #: Children that have read a bare file, and may still read; those that run a model.
    _readers: dict[Path, Child] = field(default_factory=dict, repr=False)
    _running: list[Child] = field(default_factory=list, repr=False)
    _models: list[Model] = field(default_factory=list, repr=False)
    _scratch: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def __enter__(self) -> Models:
        return self

    def __exit__(self, *_: object) -> None:
        for child in (*self._awake, *self._readers.values(), *self._running):
            child.close()
        self._awake.clear()
        self._readers.clear()
        self._running.clear()
        self._models.clear()
        self._scratch.close()

    def read_soon(self, paths: Iterable[Path]) -> None:
        """Wakes a child for each bare file, which may unpack it on disk before it runs anything."""
        for path in paths:
            if path not in self._readers:
                self._readers[path] = self._reading(path, _size(path))

    def run_soon(self, count: int, folder: Path, size: int) -> None:
        """Wakes children for models of at most ``size`` bytes that will stand somewhere below ``folder``."""
        with contextlib.suppress(OSError):  # told when something is to be put there
            folder.mkdir(parents=True, exist_ok=True)
        limits = replace(self.limits.scaled(size), readable=(str(folder.resolve()),))
        while len(self._awake) < count:
            self._awake.append(self._start(limits, "", _WARM))

    def describe(self, path: Path) -> Description:
        """What a bare file says of itself. Raises InvalidModel, SandboxFailed and kin."""
        with _as_ours():
            said = self._reader(path).ask("describe", path=str(path))
        self._grow(path, int(said.get("size", 0)))
        signature = Signature.from_dict(said["signature"], str(path)) if said["signature"] else None
        return Description(str(said["format"]), str(said["framework"]), signature)

    def tensors(self, path: Path, *, digests: bool = True) -> tuple[TensorEntry, ...]:
        """The tensors of a bare file; without ``digests`` nothing of them is read. Raises InvalidModel, SandboxFailed and
        kin."""
        with _as_ours():
            said = self._reader(path).ask("tensors", path=str(path), digests=digests)
        return tuple(TensorEntry(name, dtype, tuple(shape), digest, "") for name, dtype, shape, digest in said)

    def open(self, path: Path, bundle: Bundle, **options: Any) -> Model:
        """A model that runs. ``options`` are those of ``runtime.open_session``. Raises CannotOpen, InvalidModel,
        SandboxFailed and kin."""
        label = bundle.label
        if bundle.file is None:
            child = self._runner(path, bundle)
        else:
            child = self._reader(path)
            self._running.append(self._readers.pop(path))  # what has run a model reads for nobody any more
        with _named(path, label), _as_ours():
            said = child.ask("load", path=str(path), label=label, options=options)
            opened = Opened.from_dict(said, label)
        if said["failed"] is not None:
            message, hint = said["failed"]
            raise CannotOpen(message, hint, opened)
        inputs, outputs = (tuple(map(str, said[side])) for side in ("inputs", "outputs"))
        self._models.append(Model(opened, path, options, inputs, outputs, child))
        return self._models[-1]

    @property
    def failure(self) -> str:
        """Why a pair could not be judged to the end though its models opened; '' where it could."""
        return next((model.failure for model in self._models if model.failure), "") or want_of_memory(self._models)

    def fresh(self, model: Model) -> Child:
        """One more child for the same model, which has not opened it yet; whoever asks closes it. Raises SandboxFailed."""
        return self._start(model.limits, model.opened.label, _WARM)

    def _grow(self, path: Path, size: int) -> None:
        """Wakes a larger child where a bare file turns out to have its data in files whose names do not say so. What the
        child says is believed up to what there is beside the file."""
        beside = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
        if min(size, beside) > _size(path):
            self._readers.pop(path).close()
            self._readers[path] = self._reading(path, min(size, beside))

    def _reading(self, path: Path, size: int) -> Child:
        scratch = self._scratch.enter_context(tempfile.TemporaryDirectory(prefix="gitmodel-sandbox-"))
        limits = replace(self._limits(path, size), file_bytes=_FREE_BYTES + _RATIO * size, writable=(scratch,))
        return self._start(limits, str(path), _WARM if path.suffix.lower() == ".onnx" else "")

    def _reader(self, path: Path) -> Child:
        """The child of a bare file. Raises SandboxFailed, SandboxIncomplete."""
        self.read_soon([path])
        self._look_at(self._readers[path])
        return self._readers[path]

    def _runner(self, path: Path, bundle: Bundle) -> Child:
        """A child for a bundle's model: one that is awake, if it sees the place. Raises SandboxFailed, SandboxIncomplete."""
        place = path.parent.resolve()
        size = sum(entry.size for entry in bundle.graph_files())
        fit = [child for child in self._awake if any(map(place.is_relative_to, child.limits.readable))]
        if fit:
            self._awake.remove(fit[0])
        child = fit[0] if fit else self._start(self._limits(path, size), bundle.label, _WARM)
        child.label = bundle.label
        self._running.append(child)
        self._look_at(child)
        return child

    def _limits(self, path: Path, size: int) -> Limits:
        """Of a child that sees the folder of ``path``, and that of the file it may be a link to."""
        folders = dict.fromkeys((str(path.parent.resolve()), str(path.resolve().parent)))
        return replace(self.limits.scaled(size), readable=tuple(folders))

    def _start(self, limits: Limits, label: str, warm: str) -> Child:
        from gitmodel.sandbox.parent import Child

        child = Child.start(_MODULE, limits, warm)
        child.label = label
        return child

    def _look_at(self, child: Child) -> None:
        if child.missing:
            text = f"this machine has no whole sandbox: {', '.join(child.missing)} cannot be had"
            if self.require:
                raise SandboxIncomplete(text, hint="use Linux 5.13 or newer, or leave out --require-sandbox")
            if self.told is not None:
                self.told(f"{text}; {child.label} is opened in a child without")


def _size(path: Path) -> int:
    """Bytes of a bare file and of what stands beside it and may be its data: names that begin like its own."""
    found = 0
    with contextlib.suppress(OSError):
        found = path.stat().st_size
        found += sum(beside.stat().st_size for beside in path.parent.glob(f"{glob.escape(path.name)}?*"))
    return found


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    """The child's errors as those they were there."""
    try:
        yield
    except Refused as refused:
        kind = _ERRORS.get(refused.code)
        if kind is not None:
            raise kind(refused.message, hint=refused.hint) from None
        raise InvalidModel(refused.message, hint=refused.hint or "export the model again") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a model may have taken its child over
        text = f"what opened the model gives no answer that is one ({type(error).__name__})"
        raise InvalidModel(text, hint="look where the model comes from") from error


@contextlib.contextmanager
def _named(path: Path, label: str) -> Iterator[None]:
    """Says ``label`` where an error says the path of a temporary folder."""
    try:
        yield
    except InvalidModel as error:
        text = error.message.replace(str(path), label if label == str(path) else f"{label}: {path.name}")
        raise type(error)(text, hint=error.hint) from None
