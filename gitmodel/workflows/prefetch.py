"""What a release will ask of the version before and of the new one, asked while the new one is still being saved.

A large model takes longer to run than to open, and a save waits for hashes, disks and Git. Nothing is decided here: the judge
asks what it always asks, and finds the answers to its first calls there, if they are of the very same files and inputs.
Whatever goes wrong here it meets itself.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from gitmodel import registry
from gitmodel.bundle.bundle import GOLDEN, Bundle
from gitmodel.bundle.lock import Lock
from gitmodel.compat.sessions import Answers, Prefetched, Sessions
from gitmodel.errors import GitmodelError
from gitmodel.git import Repository
from gitmodel.workflows.workspace import Workspace

if TYPE_CHECKING:
    from gitmodel.compat.side_by_side import Arrays, Runs
    from gitmodel.storage.cache import Cache

#: Bytes of weights below which running takes no time worth a thread. The judge asks smaller models other things, too: see
#: ``calibrate.SMALL``.
_LARGE = 64 << 20


class _Asked(Struct, frozen=True):
    """The calls that a version will be judged by, and the digest of its lock."""

    digest: str = ""
    calls: Sequence[Arrays] = ()


class Prefetch(Sessions):
    """Sessions of a model's latest release and of what is being saved, which run the judge's first calls on threads of their
    own. Threads are let go of at the end of the block, in the middle of a run if need be."""

    def __init__(self, place: Workspace, name: str) -> None:
        super().__init__()
        self._place, self._name = place, name
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="prefetch")
        self._asked: Future[_Asked] = Future()
        self._old: Future[None] | None = None
        self._ended = False
        self._marks = place.repo.state_dir / "prefetch"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended = True
        self._pool.shutdown(wait=False)
        if self._old is not None:
            begun: list[Future[Any]] = [self._asked, self._old]
            wait(begun, return_when=FIRST_COMPLETED)  # until then there is a folder to tidy up
        if kind is None:  # the judge has run both
            shutil.rmtree(self._marks, ignore_errors=True)

    @property
    def begun(self) -> bool:
        return self._old is not None

    def expect(self, before: Lock | None) -> None:
        """The latest release is mostly what was saved before, about as large, and with golden cases where that has some."""
        goldens = self._place.repo.root / registry.model_path(self._name) / GOLDEN
        if self.begun or before is None or before.size < _LARGE or goldens.is_dir():
            return
        # Were this thread and the other the first to import numpy, one by a side door, each could meet half of it.
        import_module("numpy")
        self._old = self._pool.submit(self._prepare_old)

    def keep(self, digest: str, view: str, session: Runs) -> None:
        if self._old is None:
            super().keep(digest, view, session)
        else:
            super().keep(digest, view, Prefetched(session, self._pool.submit(self._answers_of_new, digest, session)))

    def find(self, digest: str, view: str) -> Runs | None:
        if self._old is not None:
            self._old.result()
        return super().find(digest, view)

    def _prepare_old(self) -> None:
        try:
            with contextlib.suppress(GitmodelError, OSError, MemoryError):
                self._run_old()
        finally:
            if not self._asked.done():
                self._asked.set_result(_Asked())

    def _run_old(self) -> None:
        # Git's helper processes are not for several threads.
        repo = Repository.open(self._place.repo.root)
        base = registry.versions(repo, self._name).latest
        old = registry.bundle_at(repo, self._name, base.ref.commit, str(base.tag)) if base else None
        if old is None or old.signature is None or not _will_run(old, self._place.cache):
            return
        from gitmodel.compat import generate, side_by_side

        with self._marked(old.lock.digest) as unharmed:
            session = self._opened(old) if unharmed and not self._ended else None
            if session is None:
                return
            calls = side_by_side.first_calls(generate.cases(old.signature), old.signature)
            self._asked.set_result(_Asked(old.lock.digest, calls))
            answers: Future[Answers] = Future()
            answers.set_result(_answers(session, calls))
            super().keep(old.lock.digest, old.view, Prefetched(session, answers))

    def _opened(self, old: Bundle) -> Runs | None:
        """Raises LoadFailed."""
        from gitmodel import runtime
        from gitmodel.storage.supply import Supply

        runtime.load_library()
        if self._ended:
            return None
        supply = Supply(self._place.cache, list, None)
        with supply.staged(old.graph_files(), self._place.repo.state_dir / "staged") as staged:
            return runtime.open_session(staged / old.view, prepack=False, label=old.label)

    def _answers_of_new(self, digest: str, session: Runs) -> Answers:
        asked = self._asked.result()
        if digest == asked.digest or not asked.calls:
            return {}
        with contextlib.suppress(OSError), self._marked(digest) as unharmed:
            return _answers(session, asked.calls) if unharmed else {}
        return {}

    @contextlib.contextmanager
    def _marked(self, digest: str) -> Iterator[bool]:
        """False for a version with which the process ended the last time: a model that brings the runtime down is not to keep
        its author from committing it, or a better one. The judge, who comes after the commit, runs it all the same."""
        mark = self._marks / digest
        if mark.exists():
            yield False
            return
        self._marks.mkdir(exist_ok=True)
        mark.touch()
        try:
            yield True
        finally:
            mark.unlink(missing_ok=True)


def _will_run(old: Bundle, cache: Cache) -> bool:
    """Whether the judge will run drawn calls on it in this process, from files that are here and known to be whole."""
    from gitmodel.compat import generate

    if old.lock.size < _LARGE or old.golden_paths() or old.card.budgets.to_dict():
        return False
    whole = (cache.has(entry) and cache.remembers(entry) for entry in old.graph_files())
    return old.signature is not None and generate.possible(old.signature) and all(whole)


def _answers(session: Runs, calls: Sequence[Arrays]) -> Answers:
    """What the session answers, refusals among it, as far as there is room to keep it."""
    from gitmodel.compat.side_by_side import RECALLED, key_of

    answers: Answers = {}
    size = 0
    for inputs in calls:
        if not (key := key_of(inputs)):
            continue
        try:
            answer = session.run(inputs)
        except GitmodelError as error:
            answers[key] = error
            continue
        except MemoryError:
            break
        size += sum(getattr(values, "nbytes", RECALLED + 1) for values in answer.values())
        if size > RECALLED:
            break
        answers[key] = answer
    return answers
