"""gitmodel.storage.carrier: who is waited for and how long, and what ends when something fails or somebody interrupts."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from gitmodel.storage import carrier
from gitmodel.storage.remote import Remote
from gitmodel.storage.settings import config_from_text


def test_an_answer_in_time_is_the_answer() -> None:
    assert carrier.within(60, lambda: 7) == 7
    with pytest.raises(ValueError, match="no number"):
        carrier.within(60, lambda: float("no number"))


def test_no_answer_is_not_waited_for() -> None:
    ever = threading.Event()
    try:
        with pytest.raises(TimeoutError, match="no answer within 0 seconds"):
            carrier.within(0.01, ever.wait)
    finally:
        ever.set()


def test_after_a_failure_nothing_is_begun_and_what_is_under_way_ends() -> None:
    begun, ended, failed = [], [], threading.Event()

    def fail() -> None:
        begun.append("fail")
        failed.set()
        raise OSError("cut")

    def slow() -> None:
        begun.append("slow")
        failed.wait()
        ended.append("slow")

    def never() -> None:
        begun.append("never")

    with pytest.raises(OSError, match="cut"):
        carrier.each(2, [slow, fail, *[never] * 100], stopped := threading.Event())
    assert ended == ["slow"]
    assert begun.count("never") < 100
    assert not stopped.is_set()


def test_an_interrupt_makes_those_under_way_give_up() -> None:
    stopped, gave_up = threading.Event(), threading.Event()

    def endless() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        stopped.wait()
        gave_up.set()

    with pytest.raises(KeyboardInterrupt):
        carrier.each(1, [endless, endless], stopped)
    assert gave_up.wait(60)


@pytest.mark.parametrize(
    ("text", "patience", "jobs"),
    [
        ("url = ssh://127.0.0.1/weights", 60.0, None),
        ("url = webdav://127.0.0.1/weights", 30.0, None),
        ("url = s3://bucket/weights", 30.0, None),
        ("url = s3://bucket/weights\nread_timeout = 300\njobs = 32", 300.0, 32),
        ("url = ssh://127.0.0.1/weights\ntimeout = 5\njobs = 1", 5.0, 1),
    ],
)
def test_what_the_user_set_in_dvc_counts(text: str, patience: float, jobs: int | None) -> None:
    found = Remote(config_from_text(f"[core]\nremote = s\n['remote \"s\"']\n{text}\n"))._carrier
    assert isinstance(found, carrier.FileSystemCarrier)
    assert found._patience == patience
    assert found.jobs == jobs if jobs else 1 <= found.jobs <= 8


def test_a_library_is_told_to_give_up_sooner_unless_the_user_says_otherwise() -> None:
    def arguments(more: str) -> dict[str, object]:
        text = f"[core]\nremote = s\n['remote \"s\"']\nurl = s3://bucket/weights\n{more}\n"
        found: dict[str, object] = Remote(config_from_text(text))._odb.fs.fs_args["config_kwargs"]
        return {name: found.get(name) for name in ("connect_timeout", "read_timeout", "retries")}

    retries = {"mode": "standard", "total_max_attempts": 3}
    assert arguments("") == {"connect_timeout": 10, "read_timeout": 60, "retries": retries}
    assert arguments("connect_timeout = 1") == {"connect_timeout": 1, "read_timeout": 60, "retries": retries}


def test_a_folder_remote_has_no_library_in_between(tmp_path: Path) -> None:
    found = Remote(config_from_text(f"[core]\nremote = s\n['remote \"s\"']\nurl = {tmp_path}\n"))._carrier
    assert isinstance(found, carrier.FolderCarrier)
    assert found.reached() is False, "there is no files/md5 in it"
