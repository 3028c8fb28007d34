"""From files that are here and verified to a version that can answer: its sessions, its golden cases on this host, its plans."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from msgspec import Struct

from gitmodel import runtime
from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.serving import validation
from gitmodel.serving.plan import Plan
from gitmodel.serving.servable import Servable

#: Bytes of weights from which on a version is served unpacked first; what is smaller is packed while it is opened.
LEAST_PACKED = 4 << 20


class Fetched(Struct, frozen=True):
    """A version whose files are here and verified: all that it takes to open it, in this process or another.

    ``called`` is the signature for calls that name none; ``views`` has the file of each signature's graph, in ``folder``.
    ``cases`` are its golden cases, and ``gates`` how far they may be missed. ``size`` is that of its weights in bytes; ``state`` is
    that of its files when they were verified: see ``state_of``.
    """

    model: str
    version: str
    number: int
    commit: str
    digest: str
    called: str
    signatures: Mapping[str, Signature]
    views: Mapping[str, str]
    cases: list[GoldenCase]
    gates: Gates
    labels: tuple[str, ...]
    folder: Path
    size: int
    state: str

    @property
    def signature(self) -> Signature:
        return self.signatures[self.called]

    @property
    def path(self) -> Path:
        return self.folder / self.views[self.called]

    @property
    def large(self) -> bool:
        """Whether its weights are packed beside the serving, not while it is opened."""
        return self.size >= LEAST_PACKED

    def servable(self, session: runtime.Session) -> Servable:
        """It, answering with ``session``; not yet tried."""
        return Servable(
            self.model, self.version, self.number, self.commit, self.digest, "onnxruntime_onnx", self.signature, session,
            0.0, 0, len(self.cases), self.labels, path=self.path, size=self.size, called=self.called,
        )  # fmt: skip


class FilesChanged(GitmodelError):
    """Somebody wrote into the store of a server."""

    code = "files-changed"
    exit_code = ExitCode.INCOMPLETE


def state_of(folder: Path) -> str:
    """A digest of what tells that files have changed: their names, inodes, sizes and times."""
    infos = [(path.name, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    lines = "".join(f"{name} {i.st_dev} {i.st_ino} {i.st_size} {i.st_mtime_ns}\n" for name, i in infos)
    return hashlib.sha256(lines.encode()).hexdigest()


class Opener:
    """``threads`` per operator. ``batch_rows`` is ``Settings.batch_rows``; ``warned`` is told of a version that does not allow
    it. Used by one thread."""

    def __init__(
        self,
        threads: int = 1,
        batch_rows: Mapping[str, int] | None = None,
        warned: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._threads, self._batch_rows, self._warned = threads, batch_rows or {}, warned

    def open(self, fetched: Fetched) -> Servable:
        """Raises LoadFailed, GoldenFailed, FilesChanged."""
        # Small weights are packed on the way; large ones stay mapped, shared with other versions that have the same.
        session = self._session(fetched.path, prepack=not fetched.large)
        if (
            state_of(fetched.folder) != fetched.state
        ):  # looked at when they are open: later changes leave them as they are
            raise FilesChanged(f"{fetched.folder} is not what was verified", hint="leave the server's store to it")
        servable = fetched.servable(session)
        check = validation.check(session, fetched.cases, fetched.signature, fetched.gates)
        servable.golden_passed, servable.golden_cases = check.passed, check.cases
        run = validation.warm_up(session, fetched.signature, fetched.cases)
        plan = Plan.of(fetched.signature)
        servable.usual = plan.decode if plan else None
        servable.batch_rows = self._batch(servable)
        servable.named = self._named(servable, fetched)
        _time(servable, *run)
        return servable

    def repack(self, servable: Servable, path: Path, fetched: Fetched) -> None:
        """Goes on with the packed model at ``path``, if it keeps the golden cases. Raises LoadFailed, GoldenFailed."""
        session, before = self._session(path), servable.session
        validation.check(session, fetched.cases, fetched.signature, fetched.gates)
        run = validation.warm_up(session, fetched.signature, fetched.cases)
        for named in servable.named.values():
            if named.session is before:
                named.session = session
                named.run_seconds, named.run_bytes = validation.warm_up(session, named.signature, [])
        _time(servable, *run)
        servable.session = session  # calls at work go on with the one they began with

    def _session(self, path: Path, *, prepack: bool = True) -> runtime.Session:
        return runtime.open_session(path, threads=self._threads, prepack=prepack)

    def _batch(self, servable: Servable) -> int:
        """How many rows may go together: none where a row's answer depends on its neighbours, or nobody can tell."""
        rows = self._batch_rows.get(servable.model, self._batch_rows.get("", 0))
        if rows > 1 and not validation.rows_stand_alone(servable.session, servable.signature):
            self._warned(f"{servable.model} {servable.version} is not batched: its rows do not stand for themselves")
            return 0
        return rows if rows > 1 else 0

    def _named(self, servable: Servable, fetched: Fetched) -> dict[str, Servable]:
        """The model's other signatures: over graphs of their own, or over outputs of the same."""
        found: dict[str, Servable] = {}
        for name, signature in fetched.signatures.items():
            if name == fetched.called:
                continue
            session, view = servable.session, fetched.views[name]
            if view != fetched.views[fetched.called]:
                session = self._session(fetched.folder / view, prepack=not fetched.large)
            seconds, size = validation.warm_up(session, signature, [])
            found[name] = replace(
                servable, signature=signature, session=session, run_seconds=seconds, run_bytes=size, called=name, repack=None, usual=None,
                batch_rows=0, named={},
            )  # fmt: skip
        return found


def _time(servable: Servable, seconds: float, size: int) -> None:
    """What leaves the event loop for a thread is decided for all signatures alike, by the slowest and by the least bytes."""
    servable.run_seconds = max([seconds, *(named.run_seconds for named in servable.named.values())])
    servable.run_bytes = min([size, *(named.run_bytes for named in servable.named.values())])
