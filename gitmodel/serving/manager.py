"""Brings what is served to what is aspired: loads before it unloads, one load at a time, failures change nothing for callers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from msgspec.structs import replace

from gitmodel.errors import GitmodelError
from gitmodel.serving.host import Host
from gitmodel.serving.last_good import LastGood
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable, Serving, State, VersionStatus
from gitmodel.storage.remote import NoRemote, RemoteFailed
from gitmodel.storage.workspace import MissingWeights

#: Told of every change of state, from the manager's thread.
Told = Callable[[VersionStatus], None]
_RETRY_FIRST, _RETRY_MOST = 2.0, 300.0
_KEPT_ENDED = 20


def _reason(error: Exception) -> str:
    if isinstance(error, MissingWeights | NoRemote | RemoteFailed):
        return str(error)  # with what helps, which only somebody elsewhere can do
    return error.message if isinstance(error, GitmodelError) else f"{type(error).__name__}: {error}"


@dataclass
class _Failure:
    """A version that would not load: when to try again (monotonic seconds), and how long to wait after that."""

    reason: str
    again_at: float
    wait: float


class Manager:
    """``table`` is replaced whole by one assignment, once the host has it: a request reads it once and answers wholly from what
    it read. ``second`` is given what serves by default when there is nothing to load, and raises nothing: see ``Prepacker.take``.
    ``begun`` is called in the thread that loads, before anything else. ``named`` are models that must be served, whatever Git says.
    With ``fills`` the number of versions counts: see ``VersionPolicy.fills``."""

    def __init__(
        self,
        host: Host,
        told: Told = lambda _: None,
        last_good: LastGood | None = None,
        second: Callable[[Collection[Servable]], None] | None = None,
        begun: Callable[[], None] = lambda: None,
        named: Collection[str] = (),
        fills: bool = False,
    ) -> None:
        self._begun, self._named, self._fills = begun, frozenset(named), fills
        self._host, self._told, self._second, self._woken = host, told, second, False
        self._last_good = last_good or LastGood(None)
        self._required: set[str] = set()
        self.table: Mapping[str, Serving] = MappingProxyType({})
        self._wanted: Mapping[str, tuple[AspiredVersion, ...]] = {}
        self._standing: Mapping[str, Mapping[str, str]] = {}
        self._released: Mapping[str, Collection[tuple[str, str]]] | None = None
        self._published = self._settled = 0
        self._failures: dict[AspiredVersion, _Failure] = {}
        self._statuses: dict[tuple[str, str, str], VersionStatus] = {}
        self._changed = threading.Condition()
        self._stopping, self._changes = False, 0
        self._thread = threading.Thread(target=self._run, name="manager", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._notify()
        self._thread.join()

    def await_change(self, seen: int, seconds: float) -> int:
        """Waits until something is not what it was when ``seen`` was returned, -1 before the first; for ``seconds`` at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen or self._stopping, seconds)
            return self._changes

    def _notify(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def wake(self) -> None:
        """There is something for ``second`` to do."""
        with self._changed:
            self._woken = True
            self._notify()

    def aspire(
        self,
        wanted: Mapping[str, tuple[AspiredVersion, ...]],
        hint: str = "",
        standing: Mapping[str, Mapping[str, str]] | None = None,
        released: Mapping[str, Collection[tuple[str, str]]] | None = None,
    ) -> int:
        """Publishes the whole desired state, where all stages stand, and the version and commit of all that could be served, if that
        is known; the newest supersedes what was not begun. Returns its number.

        A version that failed gets its next chance at once when the refs moved to it, or when somebody asked for its
        model (``hint``).
        """
        with self._changed:
            before = set(self._all_wanted())
            versions = [version for held in wanted.values() for version in held]
            for version in versions:
                if version not in before or version.model == hint:
                    self._failures.pop(version, None)
            if (fallback := self._last_good.get(hint)) is not None:
                self._failures.pop(fallback, None)
            if not self._published:
                self._required = {name for name, held in wanted.items() if held}
            self._wanted, self._standing, self._released = dict(wanted), standing or {}, released
            self._published += 1
            self._await_turn(versions)
            self._notify()
            return self._published

    def _await_turn(self, versions: list[AspiredVersion]) -> None:
        """Versions nobody has begun with are in START; those superseded before their turn are forgotten."""
        keys = {version.key for version in versions}
        for key in [k for k, status in self._statuses.items() if status.state is State.START and k not in keys]:
            del self._statuses[key]
        for version in versions:
            if version.key not in self._statuses:
                self._statuses[version.key] = VersionStatus(
                    version.model, version.version, version.commit, State.START, number=version.number
                )

    def wait(self, number: int, timeout: float) -> bool:
        """Waits until publication ``number`` is dealt with, well or badly; False when ``timeout`` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._settled >= number or self._stopping, timeout)

    def statuses(self, model: str = "") -> list[VersionStatus]:
        """By model, the newest change last. Stages are those of the newest publication."""
        with self._changed:
            found = [status for status in self._statuses.values() if not model or status.model == model]
            stages = {version.key: version.stages for version in self._all_wanted()}
        found = [replace(s, stages=stages.get((s.model, s.version, s.commit), ())) for s in found]
        return sorted(found, key=lambda status: (status.model, status.since))

    def standing(self) -> Mapping[str, Mapping[str, str]]:
        return self._standing

    def aspired(self, model: str) -> list[str]:
        """The versions of a model that should be served, whether they are or not."""
        with self._changed:
            return [version.version for version in self._wanted.get(model, ())]

    def ready(self) -> bool:
        """True when every model is served that was asked for by name, was to be served at the start, or has been since: a model that
        joins later never makes a ready server unready."""
        with self._changed:
            wanted = {name for name, versions in self._wanted.items() if versions}
            return self._settled > 0 and all(name in self.table for name in self._named | self._required & wanted)

    def _all_wanted(self) -> list[AspiredVersion]:
        return [version for versions in self._wanted.values() for version in versions]

    def _run(self) -> None:
        self._begun()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or self._published > self._settled or self._woken, self._pause()
                )
                if self._stopping:
                    return
                number, wanted, self._woken = self._published, self._wanted, False
            self._reconcile(wanted)
            with self._changed:
                self._settled = max(self._settled, number)
                self._notify()
            if self._second is not None:
                self._second([serving.default for serving in self.table.values()])

    def _pause(self) -> float | None:
        """Seconds until the next retry is due; None when nothing waits."""
        due = [failure.again_at for version, failure in self._failures.items() if version in self._all_wanted()]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _reconcile(self, wanted: Mapping[str, tuple[AspiredVersion, ...]]) -> None:
        for model in self.table:  # what is warm waits for no load
            self._point(model)
        for model in sorted(set(wanted) | set(self.table)):
            for version in reversed(wanted.get(model, ())):  # the one for calls that name none first
                if self._stopping or self._superseded(model, version):
                    break
                if not self._serves(version):
                    self._try(version)
            if wanted.get(model) and model not in self.table and not self._stopping:
                self._try_last_good(model, wanted[model])
            self._retire(model)

    def _try_last_good(self, model: str, versions: tuple[AspiredVersion, ...]) -> None:
        """After a restart there is nothing to fall back on but what served before it."""
        version = self._last_good.get(model)
        if version is not None and version not in versions:
            self._try(version)

    def _superseded(self, model: str, version: AspiredVersion) -> bool:
        with self._changed:
            return version not in self._wanted.get(model, ())

    def _serves(self, version: AspiredVersion) -> bool:
        serving = self.table.get(version.model)
        held = serving.by_version.get(version.version) if serving else None
        return held is not None and held.commit == version.commit

    def _try(self, version: AspiredVersion) -> None:
        failure = self._failures.get(version)
        if failure and failure.again_at > time.monotonic():
            return
        self._note(version, State.LOADING, reason=f"once more, after: {failure.reason}" if failure else "")
        start = time.monotonic()
        try:
            servable = self._host.load(version)
        except Exception as error:  # whatever a model or a library does, the old version goes on
            reason = _reason(error)
            first, most = getattr(error, "retry", (_RETRY_FIRST, _RETRY_MOST))
            wait = min(max(failure.wait * 2, first), most) if failure else first
            self._failures[version] = _Failure(reason, time.monotonic() + wait, wait)
            self._note(version, State.END, reason=reason, seconds=time.monotonic() - start)
            return
        self._failures.pop(version, None)
        serving, wanted = self.table.get(version.model), self._now_wanted(version.model)
        if serving is not None and version not in wanted:  # it was superseded, or withdrawn, while it was loaded
            self._note(version, State.END)
            self._host.unload(servable)
            return
        by_version = dict(serving.by_version) if serving else {}
        # Of one whose tag was forced onto another commit.
        replaced = [by_version[version.version]] if version.version in by_version else []
        by_version[version.version] = servable
        stays = serving is not None and serving.default not in replaced and version != wanted[-1]
        self._swap(version.model, serving.default if serving is not None and stays else servable, by_version)
        self._required.add(version.model)
        self._note(
            version, State.AVAILABLE, seconds=time.monotonic() - start, digest=servable.digest,
            golden_passed=servable.golden_passed, golden_cases=servable.golden_cases,
        )  # fmt: skip
        for old in replaced:
            self._unload(old)

    def _now_wanted(self, model: str) -> tuple[AspiredVersion, ...]:
        """Of now: what the publication at work wanted may be outdated."""
        with self._changed:
            return self._wanted.get(model, ())

    def _point(self, model: str) -> None:
        """Default and stages to what is wanted of them, as far as it answers; nothing is unloaded."""
        serving = self.table[model]
        self._swap(model, self._default(model, serving), serving.by_version)

    def _default(self, model: str, serving: Serving) -> Servable:
        """The last of the wanted versions if it answers, else the one it was; if that was withdrawn, the last wanted one that does."""
        versions = self._now_wanted(model)
        answering = [version for version in versions if self._serves(version)]
        if answering and (answering[-1] == versions[-1] or not self._may_stay(serving.default)):
            return serving.by_version[answering[-1].version]
        return serving.default

    def _retire(self, model: str) -> None:
        """Unloads what is no longer wanted, but never the default, nor what a stage is on, while what shall take its place
        does not answer; nor, where their number counts and fewer answer than are wanted, the newest of those that may still be served."""
        serving, versions = self.table.get(model), self._now_wanted(model)
        if serving is None:
            return
        gone = list(serving.by_version.values())
        if versions:
            self._point(model)
            serving = self.table[model]
            needed = {serving.default.version, *(held.version for held in serving.by_stage.values())}
            needed |= {version.version for version in versions if self._serves(version)}
            if self._fills:
                spare = [
                    held for name, held in serving.by_version.items() if name not in needed and self._may_stay(held)
                ]
                spare.sort(key=lambda held: -held.number)
                needed |= {held.version for held in spare[: max(0, len(versions) - len(needed))]}
            kept = {name: servable for name, servable in serving.by_version.items() if name in needed}
            gone = [servable for name, servable in serving.by_version.items() if name not in needed]
            if gone:
                self._swap(model, serving.default, kept)
        else:
            self._drop(model)
        for servable in gone:
            self._unload(servable)

    def _may_stay(self, servable: Servable) -> bool:
        """Whether it has not been withdrawn, nor its tag forced onto another commit."""
        held = self._released
        return held is None or (servable.version, servable.commit) in held.get(servable.model, ())

    def _stages(self, model: str, by_version: Mapping[str, Servable]) -> dict[str, Servable]:
        """The stages of the wanted versions: each on its version if that answers, else where it was, if that still does."""
        before, by_stage = self.table.get(model), {}
        for version in self._now_wanted(model):
            for stage in version.stages:
                held = by_version.get(version.version)
                if held is None or held.commit != version.commit:
                    held = before.by_stage.get(stage) if before else None
                if held is not None and held in by_version.values():
                    by_stage[stage] = held
        return by_stage

    def _unload(self, servable: Servable) -> None:
        version = AspiredVersion(servable.model, servable.version, servable.commit, servable.number)
        self._note(version, State.UNLOADING)
        self._host.unload(servable)
        self._note(version, State.END)

    def _swap(self, model: str, default: Servable, by_version: Mapping[str, Servable]) -> None:
        before = self.table.get(model)
        stages = self._stages(model, by_version)
        serving = Serving(default, MappingProxyType(dict(by_version)), MappingProxyType(stages))
        self._publish({**self.table, model: serving})
        if before is None or before.default is not default:
            self._last_good.put(AspiredVersion(model, default.version, default.commit, default.number))

    def _drop(self, model: str) -> None:
        self._publish({name: held for name, held in self.table.items() if name != model})

    def _publish(self, table: Mapping[str, Serving]) -> None:
        if self.table != table:
            self._host.publish(table)
            self.table = MappingProxyType(table)

    def _note(self, version: AspiredVersion, state: State, **more: object) -> None:
        with self._changed:
            before = self._statuses.pop(version.key, None)
            base = before or VersionStatus(version.model, version.version, version.commit, state)
            fresh = {"reason": "", **more, "state": state, "since": time.time(), "number": version.number}
            status = replace(base, **fresh)  # the keys are its fields
            self._statuses[version.key] = status
            wanted = {held.key for held in self._wanted.get(version.model, ())}  # their reasons stay visible
            ended = [
                k
                for k, s in self._statuses.items()
                if s.state is State.END and k[0] == version.model and k not in wanted
            ]
            for old in ended[:-_KEPT_ENDED]:
                del self._statuses[old]
            self._notify()
        with contextlib.suppress(Exception):  # a closed log must not end the loading of models
            self._told(status)
