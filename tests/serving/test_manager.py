"""gitmodel.serving.manager: the order of loads and unloads. Loading itself is a function each test writes down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from gitmodel import runtime
from gitmodel.bundle.signature import Signature
from gitmodel.errors import GitmodelError
from gitmodel.serving import manager, unloading
from gitmodel.serving.last_good import LastGood
from gitmodel.serving.manager import Manager
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable, Serving, State, VersionStatus
from gitmodel.serving.unloading import drain
from gitmodel.storage.remote import NoRemote, RemoteFailed
from gitmodel.storage.workspace import MissingWeights
from tests import support
from tests.serving.production import PATIENCE

Wanted = Mapping[str, tuple[AspiredVersion, ...]]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> runtime.Session:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(support.linear_model().SerializeToString())
    return runtime.open_session(path)


def version(text: str, model: str = "fraud", *, commit: str = "", stages: tuple[str, ...] = ()) -> AspiredVersion:
    return AspiredVersion(model, text, commit or f"commit of {text}", int(text.strip("v").split(".")[0]), stages)


def want(*texts: str) -> Wanted:
    """Each is ``model v1``, or a model alone of which nothing is wanted any more."""
    wanted = {}
    for text in texts:
        model, _, name = text.partition(" ")
        wanted[model] = (version(name, model),) if name else ()
    return wanted


class Stage:
    """A manager on a stage: which loads were begun, which must wait or fail, and every change of state in order."""

    def __init__(
        self,
        session: runtime.Session,
        last_good: LastGood | None = None,
        named: Collection[str] = (),
        *,
        fills: bool = False,
    ) -> None:
        self._session = session
        self.loads: list[str] = []
        self.said: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        self.on_state: Callable[[VersionStatus], None] = lambda _: None
        self.manager = Manager(self, self._told, last_good, named=named, fills=fills)
        self._changed = threading.Condition()

    def load(self, aspired: AspiredVersion) -> Servable:
        name = f"{aspired.model} {aspired.version}"
        with self._changed:
            self.loads.append(name)
            self._changed.notify_all()
        if gate := self.gates.get(name):
            assert gate.wait(PATIENCE)
        if error := self.fails.get(name):
            raise error
        return Servable(
            aspired.model, aspired.version, aspired.number, aspired.commit, "digest", "onnxruntime_onnx", Signature((), ()),
            self._session, 0.0, 4, 4,
        )  # fmt: skip

    def publish(self, table: Mapping[str, Serving]) -> None:
        """The tests read the manager's."""

    def unload(self, servable: Servable) -> None:
        drain(servable)

    def _told(self, status: VersionStatus) -> None:
        self.on_state(status)
        if status.state is State.START:
            return
        with self._changed:
            self.said.append(f"{status.model} {status.version} {status.state}")
            self._changed.notify_all()

    def settle(self, wanted: Wanted, hint: str = "", *, released: Iterable[str] | None = None) -> None:
        """Publishes and waits until that is dealt with; ``released`` are versions of ``fraud``, where it is known."""
        held = None if released is None else {"fraud": {(name, version(name).commit) for name in released}}
        assert self.manager.wait(self.manager.aspire(wanted, hint, {}, held), PATIENCE)

    def heard(self, line: str) -> None:
        """Waits for a change of state."""
        with self._changed:
            assert self._changed.wait_for(lambda: line in self.said, PATIENCE), self.said

    def begun(self, name: str, times: int = 1) -> None:
        """Waits until a load was begun so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.loads.count(name) >= times, PATIENCE), self.loads

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Loads of this version wait until the block ends."""
        gate = self.gates[name] = threading.Event()
        try:
            yield
        finally:
            gate.set()

    def serves(self, model: str = "fraud") -> list[str]:
        """What can be asked for, the default last."""
        serving = self.manager.table.get(model)
        if serving is None:
            return []
        return sorted(serving.by_version, key=lambda name: name == serving.default.version)

    def status(self, name: str, model: str = "fraud") -> VersionStatus:
        return next(status for status in self.manager.statuses(model) if status.version == name)


@pytest.fixture
def stage(session: runtime.Session) -> Iterator[Stage]:
    made = Stage(session)
    made.manager.start()
    yield made
    for gate in made.gates.values():
        gate.set()
    made.manager.stop()


def test_the_new_version_loads_before_the_old_one_unloads(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    stage.settle(want("fraud v2"))
    assert stage.said == [
        "fraud v1 LOADING",
        "fraud v1 AVAILABLE",
        "fraud v2 LOADING",
        "fraud v2 AVAILABLE",
        "fraud v1 UNLOADING",
        "fraud v1 END",
    ]
    assert stage.serves() == ["v2"]


def test_the_old_version_answers_while_the_new_one_loads(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    with stage.held("fraud v2"):
        stage.manager.aspire(want("fraud v2"))
        stage.begun("fraud v2")
        assert stage.serves() == ["v1"]
        assert stage.manager.ready()
    stage.heard("fraud v1 END")
    assert stage.serves() == ["v2"]


def test_a_table_once_read_never_changes(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    before = stage.manager.table
    stage.settle(want("fraud v2"))
    assert before is not stage.manager.table
    assert before["fraud"].default.version == "v1"
    with pytest.raises(TypeError):
        before["fraud"] = stage.manager.table["fraud"]  # type: ignore[index]  # that it cannot be is the point
    with pytest.raises(TypeError):
        before["fraud"].by_version["v1"] = before["fraud"].default  # type: ignore[index]  # likewise


def test_a_version_is_said_to_be_available_when_it_can_be_asked(stage: Stage) -> None:
    seen = {}

    def look(status: VersionStatus) -> None:
        seen[f"{status.version} {status.state}"] = stage.serves()

    stage.on_state = look
    stage.settle(want("fraud v1"))
    stage.settle(want("fraud v2"))
    assert seen["v1 LOADING"] == []
    assert seen["v1 AVAILABLE"] == ["v1"]
    assert seen["v2 LOADING"] == ["v1"]
    assert seen["v2 AVAILABLE"][-1] == "v2"
    assert seen["v1 UNLOADING"] == ["v2"]


def test_the_same_again_loads_nothing(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    stage.settle(want("fraud v1"))
    stage.settle(want("fraud v1"), "fraud")
    assert stage.loads == ["fraud v1"]


def test_what_loading_found_stands_in_the_status(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    status = stage.status("v1")
    assert (status.state, status.golden_passed, status.golden_cases, status.digest) == (State.AVAILABLE, 4, 4, "digest")
    assert (status.commit, status.number, status.reason) == ("commit of v1", 1, "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GitmodelError("4 of 4 golden cases fail", hint="mend it"), "4 of 4 golden cases fail"),
        (RemoteFailed("not there", hint="run 'gitmodel push'"), "not there: run 'gitmodel push'"),
        (NoRemote("no place", hint="name it with --remote"), "no place: name it with --remote"),
        (MissingWeights("not here", hint="run 'gitmodel push'"), "not here: run 'gitmodel push'"),
        (MemoryError("no room"), "MemoryError: no room"),
        (RecursionError(), "RecursionError: "),
    ],
)
def test_a_load_that_fails_changes_nothing_but_says_why(stage: Stage, error: Exception, reason: str) -> None:
    stage.settle(want("fraud v1"))
    stage.fails["fraud v2"] = error
    stage.settle(want("fraud v2"))
    assert stage.serves() == ["v1"]
    assert stage.manager.ready()
    assert (stage.status("v1").state, stage.status("v2").state) == (State.AVAILABLE, State.END)
    assert stage.status("v2").reason == reason
    assert stage.manager.aspired("fraud") == ["v2"]


def test_one_model_that_fails_keeps_no_other_from_loading(stage: Stage) -> None:
    stage.fails["a v1"] = GitmodelError("broken")
    stage.settle(want("a v1", "b v1"))
    assert (stage.serves("a"), stage.serves("b")) == ([], ["v1"])
    assert stage.manager.statuses("nothing") == []
    assert {status.model for status in stage.manager.statuses()} == {"a", "b"}


def test_after_a_failure_only_a_hint_or_the_refs_try_again_at_once(stage: Stage) -> None:
    stage.fails["fraud v2"] = GitmodelError("broken")
    stage.settle(want("fraud v2"))
    stage.settle(want("fraud v2"))
    stage.settle(want("fraud v2"), "spam")
    assert stage.loads == ["fraud v2"]
    stage.settle(want("fraud v2"), "fraud")
    assert stage.loads == ["fraud v2"] * 2
    stage.settle(want("fraud v1"))
    stage.settle(want("fraud v2"))
    assert stage.loads == ["fraud v2", "fraud v2", "fraud v1", "fraud v2"]
    del stage.fails["fraud v2"]
    stage.settle(want("fraud v2"), "fraud")
    assert stage.serves() == ["v2"]
    assert stage.status("v2").reason == ""


def waits_of(stage: Stage, error: Exception, times: int) -> list[float]:
    """The pauses after a version failed so often, before it loads."""
    waits: list[float] = []

    def look(status: VersionStatus) -> None:
        if status.state is State.END:
            waits.append(stage.manager._failures[version("v1")].wait)
            if len(waits) == times:
                stage.fails.clear()

    stage.on_state = look
    stage.fails["fraud v1"] = error
    stage.manager.aspire(want("fraud v1"))
    stage.heard("fraud v1 AVAILABLE")
    return waits


def test_a_failure_is_tried_again_by_itself_and_ever_more_rarely(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "_RETRY_FIRST", 0.01)
    monkeypatch.setattr(manager, "_RETRY_MOST", 0.05)
    assert waits_of(stage, GitmodelError("the remote is away"), 5) == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert stage.loads == ["fraud v1"] * 6
    assert stage.serves() == ["v1"]
    assert stage.manager.ready()


def test_why_it_failed_stays_to_be_seen_while_it_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "_RETRY_FIRST", 0.05)
    stage.fails["fraud v1"] = GitmodelError("broken")
    stage.settle(want("fraud v1"))
    assert stage.status("v1").reason == "broken"
    with stage.held("fraud v1"):
        stage.begun("fraud v1", stage.loads.count("fraud v1") + 1)
        found = stage.status("v1")
        assert (found.state, found.reason) == (State.LOADING, "once more, after: broken")


def test_a_version_that_ended_a_worker_is_tried_again_when_it_says(stage: Stage) -> None:
    class Costly(GitmodelError):
        retry = (0.02, 0.05)

    assert waits_of(stage, Costly("the worker is gone"), 3) == [0.02, 0.04, 0.05]


def test_a_storm_of_publications_loads_only_the_newest(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    with stage.held("fraud v2"):
        stage.manager.aspire(want("fraud v2"))
        stage.begun("fraud v2")
        for name in ("v3", "v4", "v5"):
            stage.manager.aspire(want(f"fraud {name}"))
        last = stage.manager.aspire(want("fraud v6"))
        assert not stage.manager.wait(last, 0)
    assert stage.manager.wait(last, PATIENCE)
    assert stage.loads == ["fraud v1", "fraud v2", "fraud v6"]
    assert stage.serves() == ["v6"]
    assert {status.version for status in stage.manager.statuses()} == {"v1", "v2", "v6"}


def test_what_is_superseded_before_its_turn_is_never_loaded(stage: Stage) -> None:
    with stage.held("a v1"):
        stage.manager.aspire(want("a v1", "b v1"))
        stage.begun("a v1")
        last = stage.manager.aspire(want("a v1", "b v2"))
    assert stage.manager.wait(last, PATIENCE)
    assert stage.loads == ["a v1", "b v2"]


@pytest.mark.parametrize("gone", [want("fraud"), {}], ids=["withdrawn", "forgotten"])
def test_a_model_nobody_wants_is_unloaded(stage: Stage, gone: Wanted) -> None:
    stage.settle(want("fraud v1", "spam v1"))
    stage.settle({**gone, **want("spam v1")})
    assert stage.serves() == []
    assert stage.serves("spam") == ["v1"]
    assert stage.said[-2:] == ["fraud v1 UNLOADING", "fraud v1 END"]
    assert stage.status("v1").reason == ""
    assert stage.manager.ready()


def test_going_back_loads_the_old_version_anew(stage: Stage) -> None:
    for name in ("v1", "v2", "v1"):
        stage.settle(want(f"fraud {name}"))
    assert stage.serves() == ["v1"]
    assert (stage.status("v1").state, stage.status("v2").state) == (State.AVAILABLE, State.END)


def test_calls_in_flight_end_before_their_version_does(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    old = stage.manager.table["fraud"].default
    old.in_flight = 1
    number = stage.manager.aspire(want("fraud v2"))
    stage.heard("fraud v1 UNLOADING")
    assert stage.serves() == ["v2"]
    assert not stage.manager.wait(number, 0.05)
    assert stage.status("v1").state is State.UNLOADING
    old.in_flight = 0
    assert stage.manager.wait(number, PATIENCE)
    assert stage.status("v1").state is State.END


def test_a_call_that_never_ends_holds_a_version_only_so_long(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unloading, "DRAIN_SECONDS", 0.01)
    stage.settle(want("fraud v1"))
    stage.manager.table["fraud"].default.in_flight = 1
    stage.settle(want("fraud v2"))
    assert stage.status("v1").state is State.END


def test_ready_waits_for_the_first_publication_and_its_versions(stage: Stage) -> None:
    assert not stage.manager.ready()
    with stage.held("fraud v1"):
        number = stage.manager.aspire(want("fraud v1", "spam"))
        stage.begun("fraud v1")
        assert not stage.manager.ready()
    assert stage.manager.wait(number, PATIENCE)
    assert stage.manager.ready()


def test_ready_needs_every_version_that_must_be_served(stage: Stage) -> None:
    stage.fails["fraud v1"] = GitmodelError("broken")
    stage.settle(want("fraud v1", "spam v1"))
    assert not stage.manager.ready()
    del stage.fails["fraud v1"]
    stage.settle(want("fraud v1", "spam v1"), "fraud")
    assert stage.manager.ready()


def test_a_repository_without_versions_is_ready_with_nothing(stage: Stage) -> None:
    stage.settle({})
    assert stage.manager.ready()


def test_ready_needs_every_model_that_was_asked_for_by_name(session: runtime.Session) -> None:
    stage = Stage(session, named=["fraud", "typo"])
    stage.manager.start()
    stage.settle(want("fraud v1"))
    assert not stage.manager.ready()
    stage.settle(want("fraud v1", "typo v1"))
    assert stage.manager.ready()
    stage.settle(want("fraud v1", "typo"))
    assert not stage.manager.ready(), "its tags are gone"
    stage.manager.stop()


def test_a_model_that_joins_later_does_not_make_the_others_unready(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    stage.fails["spam v1"] = GitmodelError("broken")
    with stage.held("spam v1"):
        number = stage.manager.aspire(want("fraud v1", "spam v1"))
        stage.begun("spam v1")
        assert stage.manager.ready()
    assert stage.manager.wait(number, PATIENCE)
    assert stage.manager.ready()


def test_a_model_whose_turn_has_not_come_is_known(stage: Stage) -> None:
    with stage.held("a v1"):
        stage.manager.aspire(want("a v1", "b v1"))
        stage.begun("a v1")
        assert [status.state for status in stage.manager.statuses("b")] == [State.START]


def test_a_publication_that_is_outdated_unloads_nothing(stage: Stage) -> None:
    stage.settle(want("a v1", "b v1"))
    with stage.held("a v2"):
        stage.manager.aspire(want("a v2", "b"))
        stage.begun("a v2")
        last = stage.manager.aspire(want("a v2", "b v1"))
    assert stage.manager.wait(last, PATIENCE)
    assert stage.loads == ["a v1", "b v1", "a v2"]
    assert "b v1 UNLOADING" not in stage.said


def test_a_version_whose_tag_was_forced_elsewhere_is_replaced(stage: Stage) -> None:
    stage.settle({"fraud": (version("v1", commit="first"),)})
    stage.settle({"fraud": (version("v1", commit="second"),)})
    assert stage.manager.table["fraud"].default.commit == "second"
    states = {status.commit: status.state for status in stage.manager.statuses("fraud")}
    assert states == {"first": State.END, "second": State.AVAILABLE}


def test_stages_are_shown_where_they_stand_now(stage: Stage) -> None:
    stage.settle({"fraud": (version("v1", stages=("prod",)),)})
    stage.settle({"fraud": (version("v1", stages=("green", "prod")),)})
    assert stage.loads == ["fraud v1"]
    assert stage.status("v1").stages == ("green", "prod")
    stage.settle({"fraud": (version("v2", stages=("prod",)),)})
    assert stage.status("v2").stages == ("prod",)
    assert "prod" not in stage.status("v1").stages


def test_a_listener_that_fails_does_not_end_the_manager(stage: Stage) -> None:
    def broken(status: VersionStatus) -> None:
        raise BrokenPipeError("the terminal is gone")

    stage.on_state = broken
    stage.settle(want("fraud v1"))
    stage.settle(want("fraud v2"))
    assert stage.serves() == ["v2"]


def test_only_the_last_ended_versions_are_remembered(stage: Stage) -> None:
    for number in range(1, 27):
        stage.settle(want(f"fraud v{number}"))
    statuses = stage.manager.statuses("fraud")
    assert len(statuses) <= 21
    assert statuses[-1].version in ("v25", "v26")
    assert stage.status("v26").state is State.AVAILABLE


@pytest.fixture
def restarted(session: runtime.Session, tmp_path: Path) -> Iterator[Stage]:
    """A manager that begins anew after v1 was what served."""
    before = Stage(session, LastGood(tmp_path / "serving.json"))
    before.manager.start()
    before.settle(want("fraud v1"))
    before.fails["fraud v2"] = GitmodelError("broken")
    before.settle(want("fraud v2"))
    assert before.serves() == ["v1"]
    before.manager.stop()
    made = Stage(session, LastGood(tmp_path / "serving.json"))
    made.fails["fraud v2"] = GitmodelError("still broken")
    made.manager.start()
    yield made
    made.manager.stop()


def test_after_a_restart_the_last_good_version_stands_in_for_one_that_fails(restarted: Stage) -> None:
    restarted.settle(want("fraud v2"))
    assert restarted.serves() == ["v1"]
    assert restarted.manager.ready()
    assert restarted.manager.aspired("fraud") == ["v2"]
    assert restarted.status("v2").reason == "still broken"
    restarted.settle(want("fraud v3"))
    assert restarted.serves() == ["v3"]
    assert restarted.status("v1").state is State.END


def test_after_a_restart_the_last_good_version_is_not_loaded_when_it_is_not_needed(restarted: Stage) -> None:
    del restarted.fails["fraud v2"]
    restarted.settle(want("fraud v2"))
    assert restarted.loads == ["fraud v2"]
    restarted.settle(want("fraud"))
    assert restarted.serves() == []
    assert restarted.loads == ["fraud v2"]


def test_a_hint_gives_the_last_good_version_another_chance_too(restarted: Stage) -> None:
    restarted.fails["fraud v1"] = GitmodelError("the remote is away")
    restarted.settle(want("fraud v2"))
    assert restarted.serves() == []
    assert not restarted.manager.ready()
    del restarted.fails["fraud v1"]
    restarted.settle(want("fraud v2"), "fraud")
    assert restarted.serves() == ["v1"]
    assert restarted.manager.ready()


def test_stop_waits_for_the_load_at_hand_and_begins_no_other(session: runtime.Session, tmp_path: Path) -> None:
    stage = Stage(session)
    stage.manager.start()
    with stage.held("a v1"):
        number = stage.manager.aspire(want("a v1", "b v1"))
        stage.begun("a v1")
        stopping = threading.Thread(target=stage.manager.stop)
        stopping.start()
        assert stage.manager.wait(number, PATIENCE)  # nobody is left waiting for a manager that ends
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert stage.loads == ["a v1"]


# Several versions at a time


def both(*versions: AspiredVersion) -> Wanted:
    return {"fraud": versions}


def test_several_versions_answer_and_the_last_is_the_default(stage: Stage) -> None:
    stage.settle(both(version("v1"), version("v2"), version("v3")))
    assert sorted(stage.serves()) == ["v1", "v2", "v3"]
    assert stage.serves()[-1] == "v3"
    assert stage.loads[0] == "fraud v3", "calls that name no version wait for none of the others"


def test_the_default_stays_until_the_next_one_answers(stage: Stage) -> None:
    stage.settle(both(version("v1"), version("v2")))
    with stage.held("fraud v4"):
        stage.manager.aspire(both(version("v2"), version("v3"), version("v4")))
        stage.begun("fraud v4")
        assert stage.serves() == ["v1", "v2"]
    stage.heard("fraud v1 END")
    assert sorted(stage.serves()) == ["v2", "v3", "v4"]
    assert stage.serves()[-1] == "v4"


def test_a_further_version_does_not_become_the_default(stage: Stage) -> None:
    stage.settle(both(version("v2")))
    stage.settle(both(version("v1"), version("v2")))
    assert stage.serves() == ["v1", "v2"]


def test_one_of_several_that_will_not_load_takes_nothing_away(stage: Stage) -> None:
    stage.settle(both(version("v1"), version("v2")))
    stage.fails["fraud v3"] = GitmodelError("broken", hint="mend it")
    stage.settle(both(version("v2"), version("v3")))
    assert stage.serves() == ["v2"]
    assert "broken" in stage.status("v3").reason


@pytest.fixture
def counting(session: runtime.Session) -> Iterator[Stage]:
    """As the N latest are followed."""
    made = Stage(session, fills=True)
    made.manager.start()
    yield made
    made.manager.stop()


@pytest.mark.parametrize(("released", "kept"), [(["v1", "v2", "v3"], ["v1", "v2"]), (["v2", "v3"], ["v2"])])
def test_as_many_answer_as_are_wanted_while_one_will_not_load(
    counting: Stage, released: list[str], kept: list[str]
) -> None:
    """Of those that have not been withdrawn."""
    counting.settle(both(version("v1"), version("v2")), released=["v1", "v2"])
    counting.fails["fraud v3"] = GitmodelError("broken", hint="mend it")
    counting.settle(both(version("v2"), version("v3")), released=released)
    assert counting.serves() == kept
    del counting.fails["fraud v3"]
    counting.settle(both(version("v2"), version("v3")), "fraud", released=released)
    assert counting.serves() == ["v2", "v3"]


def test_a_default_that_is_withdrawn_makes_way_for_one_that_is_wanted_and_answers(counting: Stage) -> None:
    counting.settle(both(version("v1"), version("v2")), released=["v1", "v2"])
    counting.fails["fraud v3"] = GitmodelError("broken", hint="mend it")
    counting.settle(both(version("v2"), version("v3")), released=["v1", "v2", "v3"])
    counting.settle(both(version("v1"), version("v3")), released=["v1", "v3"])
    assert counting.serves() == ["v1"]


def test_a_default_that_is_withdrawn_stays_where_no_other_answers(counting: Stage) -> None:
    counting.settle(both(version("v2")), released=["v2"])
    counting.fails["fraud v3"] = GitmodelError("broken", hint="mend it")
    counting.settle(both(version("v3")), released=["v3"])
    assert counting.serves() == ["v2"]


def test_of_those_that_may_stay_the_newest_do(counting: Stage) -> None:
    names = ["v1", "v2", "v3"]
    counting.settle(both(*map(version, names)), released=names)
    counting.fails["fraud v4"] = GitmodelError("broken", hint="mend it")
    counting.settle(both(version("v3"), version("v4")), released=[*names, "v4"])
    assert counting.serves() == ["v2", "v3"]


def test_a_version_whose_tag_was_forced_elsewhere_does_not_stay_for_another(counting: Stage) -> None:
    counting.settle(both(version("v1", commit="old"), version("v2")))
    counting.fails["fraud v3"] = GitmodelError("broken", hint="mend it")
    counting.settle(both(version("v2"), version("v3")), released=["v1", "v2", "v3"])
    assert counting.serves() == ["v2"]


def test_a_stage_moves_when_the_version_it_is_put_on_answers(stage: Stage) -> None:
    stage.settle(both(version("v1", stages=("prod",))))
    with stage.held("fraud v2"):
        stage.manager.aspire(both(version("v2", stages=("prod",))))
        stage.begun("fraud v2")
        assert stage.manager.table["fraud"].by_stage["prod"].version == "v1"
    stage.heard("fraud v1 END")
    assert stage.manager.table["fraud"].by_stage["prod"].version == "v2"


def test_a_stage_moves_between_versions_that_both_answer(stage: Stage) -> None:
    stage.settle(both(version("v2", stages=("canary",)), version("v1", stages=("prod",))))
    stage.settle(both(version("v1"), version("v2", stages=("canary", "prod"))))
    assert {name: held.version for name, held in stage.manager.table["fraud"].by_stage.items()} == {
        "canary": "v2",
        "prod": "v2",
    }
    assert stage.serves() == ["v1", "v2"]
    assert stage.loads.count("fraud v1") == stage.loads.count("fraud v2") == 1


def test_a_stage_whose_version_will_not_load_stays_where_it_was(stage: Stage) -> None:
    stage.settle(both(version("v1", stages=("prod",))))
    stage.fails["fraud v2"] = GitmodelError("broken", hint="mend it")
    stage.settle(both(version("v2", stages=("prod",))))
    assert stage.manager.table["fraud"].by_stage["prod"].version == "v1"
    assert stage.serves() == ["v1"]


def test_a_stage_that_is_taken_away_is_gone(stage: Stage) -> None:
    stage.settle(both(version("v1", stages=("prod",))))
    stage.settle(both(version("v1")))
    assert not stage.manager.table["fraud"].by_stage


def test_a_broken_one_neither_holds_the_default_nor_keeps_what_is_not_wanted(stage: Stage) -> None:
    stage.settle(both(version("v1"), version("v2", stages=("prod",))))
    stage.fails["fraud v3"] = GitmodelError("broken", hint="mend it")
    stage.settle(both(version("v3", stages=("canary",)), version("v2"), version("v1", stages=("prod",))))
    assert stage.serves()[-1] == "v1"
    for name in ("v4", "v5", "v6"):
        stage.settle(both(version("v3", stages=("canary",)), version(name, stages=("prod",))))
        assert stage.serves() == [name]


def test_warm_moves_wait_for_no_load(stage: Stage) -> None:
    stage.settle(both(version("v1"), version("v2", stages=("prod",))))
    with stage.held("fraud v3"):
        stage.manager.aspire(both(version("v3", stages=("canary",)), version("v2"), version("v1", stages=("prod",))))
        stage.begun("fraud v3")
        assert stage.serves()[-1] == "v1"
        assert stage.manager.table["fraud"].by_stage["prod"].version == "v1"
    stage.heard("fraud v3 AVAILABLE")


def test_what_was_superseded_while_it_loaded_never_answers(stage: Stage) -> None:
    stage.settle(want("fraud v1"))
    stage.fails["fraud v3"] = GitmodelError("broken", hint="mend it")
    with stage.held("fraud v2"):
        stage.manager.aspire(want("fraud v2"))
        stage.begun("fraud v2")
        number = stage.manager.aspire(want("fraud v3"))
    assert stage.manager.wait(number, PATIENCE)
    assert "fraud v2 AVAILABLE" not in stage.said
    assert stage.serves() == ["v1"]
    assert stage.status("v2").reason == ""


def test_the_last_good_version_is_the_default_and_no_other(session: runtime.Session, tmp_path: Path) -> None:
    kept = LastGood(tmp_path / "serving.json")
    stage = Stage(session, kept)
    stage.manager.start()
    try:
        stage.settle(both(version("v1"), version("v2")))
        assert (found := kept.get("fraud")) is not None
        assert found.version == "v2"
        stage.settle(both(version("v2"), version("v1")))
        assert (found := kept.get("fraud")) is not None
        assert found.version == "v1"
    finally:
        stage.manager.stop()


def test_the_reasons_of_all_that_is_wanted_stay_visible(stage: Stage) -> None:
    wanted = [version(f"v{number}") for number in range(1, 31)]
    stage.fails |= {f"fraud v{number}": GitmodelError("broken", hint="mend it") for number in range(1, 31)}
    stage.settle(both(*wanted))
    assert ["broken" in status.reason for status in stage.manager.statuses()] == [True] * 30
