"""Workers that answer calls, kept in step: a version is open in all of them before any answers from it, and all begin at once.

The switch has two phases. Every worker opens the version, shows that it keeps its golden cases, and lays ready the table of the
next epoch; whoever fails or is late stops it, and nothing has changed for callers. Then one store in shared memory lets the epoch
come, for all workers at the same moment. A worker is in step or it is ended; one that is started anew catches up before it accepts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gitmodel import runtime
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.serving import messages
from gitmodel.serving.epoch import Epoch
from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.http import Answer
from gitmodel.serving.journal import Journal
from gitmodel.serving.link import LinkLost, Refused
from gitmodel.serving.member import FAILURES, Member
from gitmodel.serving.metrics import Workers
from gitmodel.serving.opening import Fetched
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.roster import Roster
from gitmodel.serving.servable import Servable, Serving, States, VersionStatus
from gitmodel.serving.traffic import Traffic
from gitmodel.serving.unloading import DRAIN_SECONDS
from gitmodel.serving.web import GRACE_SECONDS

#: How long a worker may take to be there, to open a version, and to do what takes no time, in seconds.
_START_SECONDS, _OPEN_SECONDS, _SOON = 60.0, 600.0, 20.0
_LOOK_EVERY = 1.0
#: A worker that ends sooner than this after its start is replaced after a pause, which doubles each time.
_SHORT_LIFE, _PAUSE_FIRST, _PAUSE_MOST = 3.0, 0.5, 30.0
#: Who ends everything at once ends the workers, too; they need no others then.
_PAUSE_LEAST = 0.2


class NotPrepared(GitmodelError):
    """A worker could not open a version, so none answers from it."""

    code = "not-prepared"
    exit_code = ExitCode.INCOMPLETE


class WorkerLost(NotPrepared):
    """A worker ended while it opened a version. It may be the version's doing: others are not put at risk for it soon."""

    #: See ``Manager``: seconds until it is tried again unasked, at first and at most.
    retry = (30.0, 3600.0)


@dataclass
class _Live:
    """A version that workers have open, under its number; ``packed`` is where its packed model is, once they go on with it."""

    number: int
    fetched: Fetched
    packed: Path | None = None


class _Elsewhere(runtime.Session):
    """The session of a servable that workers have."""

    def __init__(self) -> None:
        self.input_names = self.output_names = ()

    def run(self, *_: Any) -> Any:
        raise runtime.RunFailed("calls are answered on the port for calls, by workers")


class Fleet:
    """``setup`` is the first worker's. ``listener`` is the socket that workers accept from. ``own`` is counted in with what they
    count. ``fetcher`` is the manager's, whose thread loads, publishes and unloads; ``refetcher`` is for threads that each keep
    one worker, and start another when it ends."""

    def __init__(
        self,
        fetcher: Fetcher,
        refetcher: Callable[[], Fetcher],
        setup: messages.Setup,
        listener: socket.socket,
        journal: Journal,
        own: Traffic,
    ) -> None:
        self._fetcher, self._setup, self._listener, self._journal = fetcher, setup, listener, journal
        self._refetcher, self._refetching = refetcher, threading.Lock()
        self._own = own
        self._look: Callable[[str], Answer] = lambda _: (503, [], b"")
        self._epoch = Epoch.make()
        self._numbers = itertools.count(1)
        #: Held while all workers are brought from one table to the next, or one joins: for moments.
        self._stepping = threading.Lock()
        self._live: dict[Servable, _Live] = {}
        #: Digests of versions that a worker ended over: they are no longer tried in one that answers calls.
        self._deadly: set[str] = set()
        self._table: Mapping[str, messages.Entry] = {}
        self._shown = messages.Show((), ready=False, standing={})
        self._showing = threading.Lock()
        self._roster = Roster()
        self._stopping = threading.Event()
        self._looking = ThreadPoolExecutor(max_workers=2, thread_name_prefix="looks")

    def start(self, states: States, changes: Callable[[int, float], int], look: Callable[[str], Answer]) -> None:
        """Returns when all workers accept. From then on they are shown what the versions are at, each time that
        ``changes(seen, seconds)`` returns; ``look`` answers for a page of the whole server. Raises NotPrepared."""
        self._look = look
        count = self._setup.settings.workers
        for number in range(1, count + 1):
            threading.Thread(target=self._keep, args=(number,), name=f"worker {number}", daemon=True).start()
        if failed := self._roster.await_all(count, _START_SECONDS):
            self.stop()
            raise NotPrepared(failed, hint="see what it says above")
        threading.Thread(target=self._watch, args=(states, changes), name="watch", daemon=True).start()

    # The manager's

    def load(self, aspired: AspiredVersion) -> Servable:
        """Raises GitmodelError; whatever it is, nothing that serves is touched."""
        fetched = self._fetcher.fetch(aspired)
        if fetched.digest in self._deadly:
            self._try_apart(fetched)
        live, servable = _Live(next(self._numbers), fetched), _servable(fetched)
        if fetched.large:
            servable.repack = self._repack

        def settle() -> None:
            self._live[servable] = live

        try:
            opened: list[messages.Opened] = self._have_all(messages.Open(live.number, fetched), settle)
        except NotPrepared as error:
            if isinstance(error, WorkerLost):
                self._deadly.add(fetched.digest)
            wait([member.ask(messages.Unload(live.number)) for member in self._roster.answering()], _SOON)
            raise
        servable.golden_passed, servable.golden_cases = opened[0].golden_passed, opened[0].golden_cases
        return servable

    def _try_apart(self, fetched: Fetched) -> None:
        """Has a process open it that answers no calls, and ends then. Raises NotPrepared."""
        try:
            member = self._begin(0)
        except OSError as error:
            raise NotPrepared(f"no process to try it in ({error.strerror or error})", hint="see the log") from error
        try:
            for message, seconds in ((messages.Hello(), _START_SECONDS), (messages.Open(0, fetched), _OPEN_SECONDS)):
                ((_, answer),) = self._ask([member], message, seconds)
                if isinstance(answer, GitmodelError):
                    raise answer
            self._deadly.discard(fetched.digest)
        finally:
            self._roster.end(member, GRACE_SECONDS)

    def publish(self, table: Mapping[str, Serving]) -> None:
        """All workers answer from it from one moment on."""
        with self._stepping:
            self._table = {model: self._entry(serving) for model, serving in table.items()}
            epoch = self._epoch.get() + 1
            for member, answer in self._ask(self._roster.answering(), messages.Prepare(epoch, self._table), _SOON):
                if isinstance(answer, Exception):
                    self._roster.dismiss(member)
            for member in self._roster.leaving():
                member.wait(GRACE_SECONDS)
            self._epoch.set(epoch)
            for member in self._roster.answering():
                member.tell(messages.Retire(epoch))

    def unload(self, servable: Servable) -> None:
        """Waits until all workers have let go of it."""
        with self._stepping:
            live = self._live.pop(servable, None)
            members = self._roster.answering()
        if live is not None:
            wait([member.ask(messages.Unload(live.number)) for member in members], DRAIN_SECONDS + _SOON)

    def _repack(self, servable: Servable, path: Path) -> None:
        """Raises NotPrepared."""
        live = self._live.get(servable)
        if live is None:
            return

        def settle() -> None:
            live.packed = path

        self._have_all(messages.Repack(live.number, path, live.fetched), settle)

    def _have_all(self, message: Any, settle: Callable[[], None]) -> list[Any]:
        """Has every worker do it, one of them first: what ends the process that does it ends one. Those that join meanwhile do it,
        too; ``settle`` is called while none joins. Returns the answers. Raises NotPrepared as soon as one could not."""
        done: dict[Member, Any] = {}
        while True:
            with self._stepping:
                waiting = [member for member in self._roster.answering() if member not in done]
                if done and not waiting:
                    settle()
                    return list(done.values())
            if not waiting:
                raise NotPrepared("there is no worker that could open it", hint="see the log")
            for members in (waiting[:1], waiting[1:]):
                for member, answer in self._ask(members, message, _OPEN_SECONDS):
                    if isinstance(answer, GitmodelError):
                        raise answer
                    done[member] = answer

    def _ask(
        self, members: Collection[Member], message: Any, seconds: float
    ) -> list[tuple[Member, Any | NotPrepared | WorkerLost]]:
        """The answers of all, or what went wrong. Who is gone or late has ended when this returns."""
        asked = [(member, member.ask(message)) for member in members]
        deadline, answers = time.monotonic() + seconds, []
        for member, future in asked:
            try:
                answers.append((member, member.result(future, deadline)))
            except Refused as error:
                answers.append((member, NotPrepared(str(error))))
            except (LinkLost, TimeoutError):
                self._roster.dismiss(member)
                answers.append((member, WorkerLost(f"{member} {member.fate()}")))
                member.wait(GRACE_SECONDS)
        return answers

    def _entry(self, serving: Serving) -> messages.Entry:
        by_version, by_stage = (
            {name: self._live[servable].number for name, servable in named.items()}
            for named in (serving.by_version, serving.by_stage)
        )
        return messages.Entry(self._live[serving.default].number, by_version, by_stage)

    # What is seen of it

    def show(self, states: States) -> None:
        """Returns when all workers know, or soon. One after the other: a worker that is still at what was shown before would not be
        asked, and know the older state when the newer is told of."""
        with self._showing:
            shown = messages.Show(tuple(states.statuses()), states.ready(), states.standing())
            self._shown = shown
            wait([member.ask_aside("show", shown) for member in self._roster.answering()], _LOOK_EVERY)

    def traffic(self, newest: bool) -> Traffic:
        """What all workers counted, those that are gone among them; calls in flight are brought up to date. Without ``newest``
        there are no percentiles in it."""
        total, in_flight = self._roster.count(self._own, newest=newest)
        for servable, live in list(self._live.items()):
            servable.in_flight = in_flight.get(live.number, 0)
        return total

    def workers(self) -> Workers:
        return self._roster.workers()

    def looking(self, look: Callable[[str], Answer]) -> Callable[[str], Awaitable[Answer]]:
        """In a thread: workers are asked what they counted, and that is waited for."""

        async def looked(path: str) -> Answer:
            return await asyncio.get_running_loop().run_in_executor(self._looking, look, path)

        return looked

    def states(self, states: States) -> States:
        """The same, but nothing is ready where nobody answers."""
        return _Manned(states, lambda: bool(self._roster.answering()))

    def _watch(self, states: States, changes: Callable[[int, float], int]) -> None:
        seen = -1
        while not self._stopping.is_set():
            seen = changes(seen, _LOOK_EVERY)
            try:
                self.show(states)
                self.traffic(False)  # so that little is lost with one who ends
            except Exception as error:  # whatever it is, the watch goes on
                self._journal.warned(f"watching the workers: {type(error).__name__}: {error}")
            for member in self._roster.answering():
                if member.hangs():
                    self._journal.warned(f"{member} gives no sign of life")
                    member.process.kill()

    # Workers come and go

    def stop(self) -> None:
        """Ends all workers when they are through with their calls."""
        self._stopping.set()
        self._listener.close()  # or callers would wait in it for nobody
        started = self._roster.started()
        for member in started:
            member.end()
        deadline = time.monotonic() + GRACE_SECONDS + _LOOK_EVERY
        for member in started:
            member.wait(deadline - time.monotonic())

    def _keep(self, number: int) -> None:
        """One worker after another under this number, until the server ends."""
        pause, first = 0.0, True
        while not self._stopping.is_set():
            began = time.monotonic()
            member = None
            try:
                member = self._begin(number)
            except OSError as error:
                self._fail(f"worker {number} cannot be started: {error.strerror or error}")
            if member is not None:
                if self._join(member) and not first:
                    self._roster.replaced()
                first = False
                member.lost.wait()
            lived = time.monotonic() - began
            if member is not None:
                self._roster.end(member, GRACE_SECONDS)
                if self._stopping.wait(_PAUSE_LEAST):
                    return
                self._journal.warned(f"{member} {member.fate()}; another takes its place")
            pause = min(max(_PAUSE_FIRST, 2 * pause), _PAUSE_MOST) if lived < _SHORT_LIFE else 0.0
            self._stopping.wait(pause)

    def _begin(self, number: int) -> Member:
        """Raises OSError."""
        member = Member.begin(
            replace(self._setup, number=number), (self._listener.fileno(), self._epoch.descriptor), self._answer,
            self._executor, self._roster.dismiss,
        )  # fmt: skip
        self._roster.start(member)
        if self._stopping.is_set():
            member.end()
        return member

    def _join(self, member: Member) -> bool:
        """Brings a worker to where the others are, and has it accept; one that cannot is ended."""
        try:
            member.call(messages.Hello(), _START_SECONDS)
            opened: set[int] = set()
            while True:
                for live in [live for live in list(self._live.values()) if live.number not in opened]:
                    self._catch_up(member, live)
                    opened.add(live.number)
                with self._stepping:
                    numbers = {live.number for live in self._live.values()}
                    if numbers <= opened:
                        for number in opened - numbers:
                            member.ask(messages.Unload(number))
                        self._step_in(member)
                        break
        except FAILURES as error:
            said = str(error) if isinstance(error, Refused) else member.fate()
            self._fail(f"{member} does not catch up: {said}")
            member.process.kill()
            return False
        self._journal.joined(member.number, member.process.pid)
        return True

    def _step_in(self, member: Member) -> None:
        member.call(messages.Prepare(self._epoch.get(), self._table), _SOON)
        member.call(self._shown, _SOON)
        self._roster.join(member)
        member.tell(messages.Accept())

    def _catch_up(self, member: Member, live: _Live) -> None:
        """Its files are looked at again before anybody opens them. Raises Refused, LinkLost, TimeoutError."""
        one = live.fetched
        with (
            self._refetching,
            contextlib.suppress(GitmodelError, OSError),
        ):  # a version may be served that has been withdrawn
            live.fetched = self._refetcher().fetch(AspiredVersion(one.model, one.version, one.commit, one.number))
        member.call(messages.Open(live.number, live.fetched), _OPEN_SECONDS)
        if live.packed is not None:
            try:
                member.call(messages.Repack(live.number, live.packed, live.fetched), _OPEN_SECONDS)
            except Refused:  # it is for speed
                return
            except FAILURES:
                live.packed = None  # the next one does without
                raise

    def _fail(self, text: str) -> None:
        self._journal.warned(text)
        self._roster.failed(text)

    def _answer(self, message: Any) -> Any:
        match message:
            case messages.Look(path):
                return self._look(path)
            case messages.Say(line):
                self._journal.write(line)
        return None

    def _executor(self, message: Any) -> ThreadPoolExecutor | None:
        return self._looking if isinstance(message, messages.Look) else None


class _Manned:
    """States of a server that is ready only while somebody answers."""

    def __init__(self, states: States, manned: Callable[[], bool]) -> None:
        self._states, self._manned = states, manned

    def statuses(self, model: str = "") -> list[VersionStatus]:
        return self._states.statuses(model)

    def standing(self) -> Mapping[str, Mapping[str, str]]:
        return self._states.standing()

    def ready(self) -> bool:
        return self._states.ready() and self._manned()


def _servable(fetched: Fetched) -> Servable:
    """It, for whoever asks what it is: workers run it."""
    servable = fetched.servable(_Elsewhere())
    named = {name: fetched.servable(_Elsewhere()) for name in fetched.signatures if name != fetched.called}
    for name, one in named.items():
        one.signature, one.called = fetched.signatures[name], name
    servable.named = named
    return servable
