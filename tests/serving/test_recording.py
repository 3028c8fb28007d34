"""Answered requests as files: whole, private, bounded; whatever the disk does, answers stay what they were."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitmodel.bundle.signature import Signature
from gitmodel.formats import golden_files
from gitmodel.serving import recording
from gitmodel.serving.dataplane import DataplaneError
from gitmodel.serving.recording import CannotRecord, Recorder, RecordingDataplane
from gitmodel.serving.servable import Servable
from gitmodel.workflows import golden_add
from gitmodel.workflows.golden import cases_of
from tests import support
from tests.serving import production as place
from tests.serving.production import Production, array, infer, rows, tensors

INFER = "/v2/models/fraud/infer"
Records = Callable[..., Recorder]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Records]:
    """Makes ``tmp_path/record`` ready and recorders over it, and ends them."""
    made: list[Recorder] = []

    def make(**options: Any) -> Recorder:
        recording.prepare(tmp_path / "record")
        made.append(Recorder(tmp_path / "record", **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def answers(recorder: Recorder, servable: Servable, count: int) -> list[Mapping[str, np.ndarray]]:
    """Calls through a dataplane that records; what it answered."""
    plane = RecordingDataplane(recorder, dict, lambda _: [])
    return [plane.infer(servable, {"x": rows(1, seed=i)}) for i in range(count)]


def kept(tmp_path: Path, signature: Signature) -> list[dict[str, np.ndarray]]:
    return [request for _, request in golden_files.traffic(tmp_path / "record", "fraud", signature)]


def test_requests_are_read_as_they_were_answered(
    tmp_path: Path, recorder: Records, servable: Callable[..., Servable]
) -> None:
    one, made = servable(), recorder()
    answered = answers(made, one, 3)
    made.stop()
    found = kept(tmp_path, one.signature)
    assert len(found) == made.written == 3
    for number, request in enumerate(found):
        np.testing.assert_array_equal(request["x"], rows(1, seed=number), strict=True)
        np.testing.assert_array_equal(request["scores"], answered[number]["scores"], strict=True)


def test_only_this_user_can_read_them(tmp_path: Path, recorder: Records, servable: Callable[..., Servable]) -> None:
    recording = recorder()
    answers(recording, servable(), 1)
    recording.stop()
    for path in (tmp_path / "record", *(tmp_path / "record").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_each_nth_is_recorded_and_no_more_than_the_limit(
    tmp_path: Path, recorder: Records, servable: Callable[..., Servable]
) -> None:
    one, recording = servable(), recorder(every=3, limit=2)
    answers(recording, one, 12)
    recording.stop()
    found = kept(tmp_path, one.signature)
    assert len(found) == 2
    np.testing.assert_array_equal(found[1]["x"], rows(1, seed=3))


def test_the_limit_counts_what_is_there_and_numbers_go_on(
    tmp_path: Path, recorder: Records, servable: Callable[..., Servable]
) -> None:
    one = servable()
    for limit, there in ((2, 2), (3, 3), (3, 3)):
        recording = recorder(limit=limit)
        answers(recording, one, 4)
        recording.stop()
        folder = tmp_path / "record" / "fraud" / "v1.0.0"
        assert sorted(path.name for path in folder.iterdir()) == [f"test_data_set_{i}" for i in range(there)]


def test_versions_are_recorded_apart(tmp_path: Path, recorder: Records, servable: Callable[..., Servable]) -> None:
    recording = recorder(limit=1)
    for version in ("v1.0.0", "v1.1.0"):
        answers(recording, servable(version=version), 2)
    recording.stop()
    assert sorted(path.parent.name for path in (tmp_path / "record").rglob("test_data_set_0")) == ["v1.0.0", "v1.1.0"]


def test_what_is_refused_is_not_recorded(tmp_path: Path, recorder: Records, servable: Callable[..., Servable]) -> None:
    recording = recorder()
    plane = RecordingDataplane(recording, dict, lambda _: [])
    with pytest.raises(DataplaneError):
        plane.infer(servable(), {"x": np.ones((1, 5), "float32")})
    recording.stop()
    assert list((tmp_path / "record").iterdir()) == []


def test_what_is_too_large_for_a_case_is_left_out(
    tmp_path: Path, recorder: Records, servable: Callable[..., Servable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_BYTES", 100)
    one, made = servable(), recorder()
    words = {"x": np.array(["a" * 90, "b" * 90], object)}
    for inputs in ({"x": rows(50)}, words, {"x": rows(1)}):
        made.offer(one, inputs, {"scores": np.ones((1, 3), "float32")})
    made.offer(one, {"x": rows(1)}, {"scores": [{1: 0.5}]})  # type: ignore[dict-item]  # a map, as ZipMap gives it
    made.stop()
    assert made.written == 1


def test_a_slow_disk_drops_and_never_waits(
    tmp_path: Path, recorder: Records, servable: Callable[..., Servable], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = threading.Event()
    written = Recorder._write

    def waiting(self: Recorder, answered: recording.Answered) -> None:
        assert slow.wait(60)
        written(self, answered)

    monkeypatch.setattr(Recorder, "_write", waiting)
    made = recorder()
    count = 2 * recording.WAITING + 2
    assert len(answers(made, servable(), count)) == count, "all are answered while nothing is written"
    assert made.dropped >= recording.WAITING
    slow.set()
    made.stop()
    assert made.written == count - made.dropped


def test_a_disk_that_fails_ends_the_recording_and_is_told_once(
    tmp_path: Path, recorder: Records, servable: Callable[..., Servable]
) -> None:
    told: list[str] = []
    made = recorder(warned=told.append)
    (tmp_path / "record" / "fraud").write_text("in the way")
    one = servable()
    first = answers(made, one, 3)
    made.stop()
    assert told == ["recording stopped: File exists"]
    assert len(first) == 3
    assert len(answers(made, one, 1)) == 1
    assert (made.written, made.failed) == (0, told[0])


def test_half_a_request_is_never_seen(
    tmp_path: Path, recorder: Records, servable: Callable[..., Servable], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording, "write_all", full)
    made = recorder()
    answers(made, servable(), 1)
    made.stop()
    assert made.failed == "recording stopped: No space left on device"
    assert list((tmp_path / "record" / "fraud" / "v1.0.0").iterdir()) == []


def test_what_a_killed_server_left_half_written_goes(tmp_path: Path) -> None:
    left = tmp_path / "record" / "fraud" / "v1.0.0" / ".set-k1ll3d"
    left.mkdir(parents=True)
    (left / "input_0.pb").write_bytes(b"half")
    recording.prepare(tmp_path / "record")
    assert not left.exists()


def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CannotRecord, match=r"cannot record in .*file \(File exists\): name another folder with --record"
    ):
        recording.prepare(tmp_path / "file")


# A real server


def test_a_server_records_what_it_answers_and_it_becomes_golden_cases(production: Production, tmp_path: Path) -> None:
    production.push(production.release("fraud@v1.0.0"))
    record = tmp_path / "record"
    with place.serving(production.bare, "--record", str(record), "--record-limit", "3") as server:
        answered = [server.ask("POST", INFER, infer(rows(2, seed=i))) for i in range(5)]
        assert server.ask("POST", INFER, infer(np.ones((1, 5), "float32"))).status == 400
    assert [answer.status for answer in answered] == [200] * 5
    done = golden_add.add("fraud", golden_add.Origin(traffic=record), repo=production.author)
    assert (len(done.added), done.wrong) == (3, ())
    group = next(g for g in cases_of("fraud", repo=production.author, check=True) if g.name == "traffic")
    assert [(row.rows, row.wrong) for row in group.rows] == [(2, "")] * 3
    (_, first), *_ = golden_files.traffic(record, "fraud", Signature((), ()))
    np.testing.assert_array_equal(first["scores"], array(tensors(answered[0])["scores"]))


def test_a_server_goes_on_when_it_cannot_record(production: Production, tmp_path: Path) -> None:
    production.push(production.release("fraud@v1.0.0"))
    record = tmp_path / "record"
    with place.serving(production.bare, "--record", str(record), "--record-every", "1") as server:
        (record / "fraud").write_text("in the way")
        assert server.ask("POST", INFER, infer(rows(1))).status == 200
        assert server.wait_for(lambda line: line.startswith("warning: recording stopped: "))
        assert server.ask("POST", INFER, infer(rows(1))).status == 200


def test_a_server_that_could_never_record_does_not_start(production: Production, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = support.gitmodel("serve", "--port", "0", "--record", str(tmp_path / "file"), cwd=production.bare)
    assert done.returncode == 3
    assert done.stderr.startswith("error[cannot-record]: cannot record in ")
