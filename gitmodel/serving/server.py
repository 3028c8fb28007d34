"""Wires source, manager, workers and front end into one server, and ends it in order."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import cache, partial
from importlib.metadata import version

from msgspec.structs import replace

from gitmodel.endpoint import Endpoint, announce, socket_path
from gitmodel.git import Repository
from gitmodel.serving import listening, messages, recording
from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.fleet import Fleet
from gitmodel.serving.front import Front
from gitmodel.serving.guard import Notices
from gitmodel.serving.journal import Journal
from gitmodel.serving.last_good import LastGood
from gitmodel.serving.management import Management
from gitmodel.serving.manager import Manager
from gitmodel.serving.overview import Overview
from gitmodel.serving.policy import VersionPolicy
from gitmodel.serving.prepacking import Prepacker
from gitmodel.serving.priority import stand_back
from gitmodel.serving.servable import VersionStatus
from gitmodel.serving.settings import Settings
from gitmodel.serving.source import Source
from gitmodel.serving.traffic import Traffic
from gitmodel.serving.web import say_in
from gitmodel.signing import Verifier, read_secrets


def serve(settings: Settings, journal: Journal) -> None:
    """Serves until SIGTERM or SIGINT, then lets what is in flight end.

    Raises NotARepository, CannotListen, CannotRecord, BadSecret, NotPrepared.
    """
    say_in(journal)
    repo = Repository.open(settings.repo)
    state_dir = repo.state_dir
    repo.close()
    keys = read_secrets(settings.secret) if settings.secret else ()
    with contextlib.ExitStack() as stack:
        public = stack.enter_context(listening.listen(settings.host, settings.port))
        admin_path = settings.admin or socket_path(state_dir)
        sockets, notices = [stack.enter_context(listening.listen_unix(admin_path))], None
        if settings.notify:
            sockets.append(stack.enter_context(listening.listen_for_notices(settings.notify, public)))
            notices = Notices(sockets[-1].getsockname()[1], Verifier(keys))
        own, release = Traffic(), version("gitmodel")

        def heard(status: VersionStatus) -> None:
            own.told(status)
            journal.told(status)

        if settings.record is not None:
            recording.prepare(settings.record)
        fetcher = _fetcher(settings)
        setup = messages.Setup(1, settings, release, journal.as_json, journal.requests)
        fleet = Fleet(fetcher, cache(partial(_fetcher, settings)), setup, public, journal, own)
        policy = VersionPolicy(settings.follow)
        packer = Prepacker(state_dir / "prepacked", threads=settings.threads, warned=journal.warned)
        manager = Manager(
            fleet, heard, LastGood(state_dir / "serving.json"), packer.take if settings.prepack else None,
            stand_back, settings.models, policy.fills,
        )  # fmt: skip
        packer.wake = manager.wake
        source = Source(settings.repo, manager.aspire, models=settings.models, policy=policy, poll=settings.poll)
        states = fleet.states(manager)
        overview = Overview(states, lambda: manager.table, fleet.traffic, release, fleet.workers)
        front = Front(
            replace(settings, record=None, batch_rows={}),  # workers answer calls
            release, lambda: manager.table, states, fleet.looking(overview.answer), traffic=own, journal=journal,
            management=Management(manager, source, notices, partial(fleet.show, manager)),
        )  # fmt: skip
        stack.callback(front.stop)
        _heed_signals(front)
        fleet.start(manager, manager.await_change, overview.answer)
        endpoint = Endpoint(os.getpid(), f"http://{listening.named(public)}", str(admin_path))
        stack.callback(announce(state_dir, endpoint).unlink, missing_ok=True)
        manager.start()
        stack.callback(packer.stop)
        stack.callback(manager.stop)
        journal.started(settings.repo.resolve(), endpoint, source.missing(settings.batch_rows.keys() - {""}))
        if notices is not None:
            journal.listening(f"http://{listening.named(sockets[1])}")
        source.look()
        source.start()
        stack.callback(source.stop)
        stack.callback(fleet.stop)  # first of all: nobody waits for a load that is under way
        front.run(sockets)


def _heed_signals(front: Front) -> None:
    """A signal asks, it never interrupts: an exception raised anywhere could be swallowed anywhere. uvicorn puts its own handlers in
    the places of the first two while it runs, and raises the signal again when it has drained."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: front.end())
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, lambda *_: front.end())


def _fetcher(settings: Settings) -> Fetcher:
    return Fetcher(settings.repo, store=settings.store, remote_url=settings.remote_url)
