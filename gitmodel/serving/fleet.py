"""Workers that answer calls, kept in step: a version is open in all of them before any answers from it, and all begin at once.

The switch has two phases. Every worker opens the version, shows that it keeps its golden cases, and lays ready the table of the
next epoch; whoever fails or is late stops it, and nothing has changed for callers. Then one store in shared memory lets the epoch
come, for all workers at the same moment. A worker is in step or it is ended: one that is started anew catches up before it accepts.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
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
from gitmodel.serving.link import Link, LinkLost, Refused
from gitmodel.serving.metrics import Workers
from gitmodel.serving.opening import Fetched
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable, Serving, States
from gitmodel.serving.traffic import Traffic
from gitmodel.serving.unloading import DRAIN_SECONDS
from gitmodel.serving.web import GRACE_SECONDS

#: How long a worker may take to be there, to open a version, and to do what takes no time, in seconds.
_START_SECONDS, _OPEN_SECONDS, _SOON = 60.0, 600.0, 20.0
_COUNT_SECONDS = 1.0
#: How often a worker at work is asked whether it lives, and how long it has to say so.
_PULSE_SECONDS = 5.0
#: A worker that ends sooner than this after its start is replaced after a pause, which doubles each time.
_SHORT_LIFE, _PAUSE_FIRST, _PAUSE_MOST = 10.0, 0.5, 30.0


class NotPrepared(GitmodelError):
    """A worker could not open a version, so none answers from it."""

    code = "not-prepared"
    exit_code = ExitCode.INCOMPLETE


@dataclass(eq=False)
class _Member:
    """A worker: ``counted`` is what it counted when it was asked last."""

    number: int
    process: subprocess.Popen[bytes]
    link: Link
    began: float
    counted: Traffic = field(default_factory=Traffic)
    in_flight: Mapping[int, int] = field(default_factory=dict)


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
    """``setup`` is the first worker's. ``listener`` is the socket that workers accept from. ``own`` is
    counted in with what they count. The manager's thread loads, publishes and unloads; a thread of its own replaces workers that end."""

    def __init__(
        self,
        fetcher: Fetcher,
        setup: messages.Setup,
        listener: socket.socket,
        journal: Journal,
        own: Traffic,
    ) -> None:
        self._fetcher, self._setup, self._listener, self._journal = fetcher, setup, listener, journal
        self._own = own
        self._look: Callable[[str], Answer] = lambda _: (503, [], b"")
        self._epoch = Epoch.make()
        self._numbers = itertools.count(1)
        #: Held while workers are brought from one state to the next, so that one that joins finds a whole state.
        self._stepping = threading.Lock()
        self._members: list[_Member] = []
        self._live: dict[Servable, _Live] = {}
        self._table: Mapping[str, messages.Entry] = {}
        self._shown = messages.Show((), ready=False)
        self._gone, self._replaced = Traffic(), 0
        self._lost: list[_Member] = []
        self._noticed = threading.Condition()
        self._stopping = False
        self._looking = ThreadPoolExecutor(max_workers=2, thread_name_prefix="looks")

    def start(self, states: States, changes: Callable[[int, float], int], look: Callable[[str], Answer]) -> None:
        """Returns when all workers accept. From then on they are shown what the versions are at, each time that
        ``changes(seen, seconds)`` returns; ``look`` answers for a page of the whole server. Raises NotPrepared."""
        self._look = look
        begun = [self._begin(number + 1) for number in range(self._setup.settings.workers)]
        for member in begun:
            if not self._join(member):
                self.stop()
                raise NotPrepared(f"worker {member.number} does not start", hint="see what it says above")

        def show() -> None:
            seen = -1
            while not self._stopping:
                seen = changes(seen, _COUNT_SECONDS)
                self.show(states)

        for name, target in (("fleet", self._replace), ("states", show)):
            threading.Thread(target=target, name=name, daemon=True).start()

    # The manager's

    def load(self, aspired: AspiredVersion) -> Servable:
        """Raises GitmodelError; whatever it is, nothing that serves is touched."""
        fetched = self._fetcher.fetch(aspired)
        live = _Live(next(self._numbers), fetched)
        with self._stepping:
            # One tries first: a model that ends the process that opens it ends one.
            first, rest = self._members[:1], self._members[1:]
            if not first:
                raise NotPrepared("there is no worker that could open it", hint="see the log")
            opened: list[messages.Opened] = []
            for members in (first, rest):
                answers = self._ask(members, messages.Open(live.number, fetched), _OPEN_SECONDS)
                failed = [answer for answer in answers if isinstance(answer, Exception)]
                if failed:
                    self._ask(self._members, messages.Unload(live.number), _SOON)
                    raise NotPrepared(str(failed[0]))
                opened += answers
            if strange := [one for one in opened if one.digest != fetched.digest]:
                raise NotPrepared(f"a worker opened {strange[0].digest[:10]} for {fetched.digest[:10]}")
            servable = fetched.servable(_Elsewhere())
            servable.golden_passed, servable.golden_cases = opened[0].golden_passed, opened[0].golden_cases
            servable.named = {
                name: fetched.servable(_Elsewhere()) for name in fetched.signatures if name != fetched.called
            }
            for name, named in servable.named.items():
                named.signature, named.called = fetched.signatures[name], name
            if fetched.large:
                servable.repack = self._repack
            self._live[servable] = live
        return servable

    def publish(self, table: Mapping[str, Serving]) -> None:
        """All workers answer from it from one moment on."""
        with self._stepping:
            self._table = {model: self._entry(serving) for model, serving in table.items()}
            epoch = self._epoch.get() + 1
            self._ask(self._members, messages.Prepare(epoch, self._table), _SOON)
            self._epoch.set(epoch)
            for member in self._members:
                member.link.tell(messages.Retire(epoch))

    def unload(self, servable: Servable) -> None:
        """Waits until all workers have let go of it."""
        with self._stepping:
            live = self._live.pop(servable, None)
            members = list(self._members)
        if live is not None:
            asked = [member.link.ask(messages.Unload(live.number)) for member in members]
            wait(asked, DRAIN_SECONDS + _SOON)

    def _repack(self, servable: Servable, path: Path) -> None:
        """Raises NotPrepared; workers that could go on with it do."""
        with self._stepping:
            live = self._live.get(servable)
            if live is None:
                return
            answers = self._ask(self._members, messages.Repack(live.number, path, live.fetched), _OPEN_SECONDS)
            for answer in answers:
                if isinstance(answer, Refused):
                    raise NotPrepared(str(answer))
            live.packed = path

    def _entry(self, serving: Serving) -> messages.Entry:
        by_version, by_stage = (
            {name: self._live[servable].number for name, servable in named.items()}
            for named in (serving.by_version, serving.by_stage)
        )
        return messages.Entry(self._live[serving.default].number, by_version, by_stage)

    # What is seen of it

    def show(self, states: States) -> None:
        """Returns when all workers know, or soon."""
        shown = messages.Show(tuple(states.statuses()), states.ready())
        self._shown = shown
        wait([member.link.ask(shown) for member in list(self._members)], _COUNT_SECONDS)

    def traffic(self) -> Traffic:
        """What all workers counted, those that are gone among them; calls in flight are brought up to date."""
        members = list(self._members)
        asked = {member.link.ask(messages.Count()): member for member in members}
        done, _ = wait(asked, _COUNT_SECONDS)
        for answer in done:
            with contextlib.suppress(Refused, LinkLost):
                counted: messages.Counted = answer.result()
                asked[answer].counted = pickle.loads(counted.traffic)  # noqa: S301  # a worker's
                asked[answer].in_flight = counted.in_flight
        total = Traffic()
        for part in (self._own, self._gone, *(member.counted for member in members)):
            total.add(part)
        for servable, live in list(self._live.items()):
            servable.in_flight = sum(member.in_flight.get(live.number, 0) for member in members)
        return total

    def workers(self) -> Workers:
        return Workers(len(self._members), self._replaced)

    # Workers come and go

    def stop(self) -> None:
        """Ends all workers when they are through with their calls."""
        with self._noticed:
            self._stopping = True
            self._noticed.notify_all()
        self._listener.close()  # or callers would wait in it for nobody
        members = list(self._members)
        for member in members:
            _end(member.process)
        deadline = time.monotonic() + GRACE_SECONDS + _COUNT_SECONDS
        for member in members:
            _await(member.process, deadline)

    def _begin(self, number: int) -> _Member:
        """A worker's process; it cannot be asked yet."""
        ours, its = socket.socketpair()
        inherited = (its.fileno(), self._listener.fileno(), self._epoch.descriptor)
        call = f"from gitmodel.serving.worker import main; main({', '.join(map(str, inherited))})"
        with its:
            process = subprocess.Popen(
                # Without -P Python would look for modules in the folder the server was started in first.
                [sys.executable, "-P", "-c", call], stdin=subprocess.PIPE, pass_fds=inherited,
                start_new_session=True,  # what is typed at the terminal is its server's to deal with
            )  # fmt: skip
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(pickle.dumps(replace(self._setup, number=number)))
        member: _Member
        link = Link(ours, self._answer, executor=self._executor, lost=lambda: self._notice(member))
        member = _Member(number, process, link, time.monotonic())
        link.start()
        return member

    def _join(self, member: _Member) -> bool:
        """Brings a worker to where the others are, and has it accept; one that cannot is ended."""
        try:
            member.link.ask(messages.Hello()).result(_START_SECONDS)
            with self._stepping:
                for live in self._live.values():
                    member.link.ask(messages.Open(live.number, live.fetched)).result(_OPEN_SECONDS)
                    if live.packed is not None:
                        repacked = member.link.ask(messages.Repack(live.number, live.packed, live.fetched))
                        with contextlib.suppress(Refused):  # it is for speed
                            repacked.result(_OPEN_SECONDS)
                member.link.ask(messages.Prepare(self._epoch.get(), self._table)).result(_SOON)
                member.link.ask(self._shown).result(_SOON)
                self._members.append(member)
                self._members.sort(key=lambda one: one.number)
                member.link.tell(messages.Accept())
        except (LinkLost, Refused, TimeoutError) as error:
            self._journal.warned(f"worker {member.number} (pid {member.process.pid}) does not catch up: {error}")
            member.process.kill()
            member.process.wait()
            return False
        self._journal.joined(member.number, member.process.pid)
        return True

    def _ask(self, members: Collection[_Member], message: Any, seconds: float) -> list[Any]:
        """The answers, or the exceptions. Who is gone or late is no member any more: before the next epoch comes it has ended."""
        asked: list[tuple[_Member, Future[Any]]] = [(member, member.link.ask(message)) for member in members]
        deadline, answers = time.monotonic() + seconds, []
        for member, future in asked:
            try:
                answers.append(_result(member, future, deadline))
            except Refused as error:
                answers.append(error)
            except (LinkLost, TimeoutError):
                self._members.remove(member)
                answers.append(
                    NotPrepared(f"worker {member.number} (pid {member.process.pid}) {_fate(member.process)}")
                )
                _end(member.process)
                _await(member.process, time.monotonic() + GRACE_SECONDS + _COUNT_SECONDS)
        return answers

    def _notice(self, member: _Member) -> None:
        with self._noticed:
            self._lost.append(member)
            self._noticed.notify_all()

    def _replace(self) -> None:
        pauses: dict[int, float] = {}
        while True:
            with self._noticed:
                self._noticed.wait_for(lambda: self._lost or self._stopping)
                if self._stopping:
                    return
                lost = self._lost.pop(0)
            with self._stepping:
                if lost in self._members:
                    self._members.remove(lost)
                self._gone.add(lost.counted)
            _end(lost.process)
            _await(lost.process, time.monotonic() + GRACE_SECONDS)
            fate = _fate(lost.process)
            self._journal.warned(f"worker {lost.number} (pid {lost.process.pid}) {fate}; another takes its place")
            short = time.monotonic() - lost.began < _SHORT_LIFE
            pause = min(pauses.get(lost.number, _PAUSE_FIRST / 2) * 2, _PAUSE_MOST) if short else 0.0
            pauses[lost.number] = pause
            with self._noticed:
                if self._noticed.wait_for(lambda: self._stopping, pause):
                    return
            self._replaced += 1
            try:
                self._join(self._begin(lost.number))
            except OSError as error:
                self._journal.warned(f"worker {lost.number} cannot be started: {error.strerror or error}")
                self._notice(lost)

    def _answer(self, message: Any) -> Any:
        match message:
            case messages.Look(path):
                return self._look(path)
            case messages.Say(line):
                self._journal.write(line)
        return None

    def _executor(self, message: Any) -> ThreadPoolExecutor | None:
        return self._looking if isinstance(message, messages.Look) else None


def _result(member: _Member, future: Future[Any], deadline: float) -> Any:
    """Until the deadline (monotonic seconds), as long as the worker gives signs of life. Raises Refused, LinkLost, TimeoutError."""
    while True:
        left = deadline - time.monotonic()
        try:
            return future.result(max(0.0, min(_PULSE_SECONDS, left)))
        except TimeoutError:
            if left <= _PULSE_SECONDS:
                raise
            try:
                member.link.ask(messages.Hello()).result(_PULSE_SECONDS)
            except TimeoutError:
                member.process.kill()  # it would not hear a signal that asks
                raise


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()


def _await(process: subprocess.Popen[bytes], deadline: float) -> None:
    """Until it has ended, which it has at the deadline (monotonic seconds)."""
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _fate(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_COUNT_SECONDS)
    except subprocess.TimeoutExpired:
        return "did not answer in time"
    return f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
