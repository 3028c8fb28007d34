"""gitmodel.storage.remote against real servers of every kind: S3, SSH, WebDAV, HTTP; lines that are cut, servers that are silent."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage.cache import Cache
from gitmodel.storage.remote import Remote, RemoteFailed
from gitmodel.storage.settings import config_from_text
from tests import support
from tests.storage.servers import READ_ONLY, Server, Wire, silence
from tests.workflows import state

#: httpx (WebDAV) forgets connections that a server closed, aiobotocore (S3) those that were cut, without closing their ends.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

WRITABLE = ["folder", "s3", "ssh", "webdav"]
SERVED = ["s3", "ssh", "webdav"]
SIZE, COUNT = 100_000, 6


class Place:
    """A place of its own on a server, a cache with six objects in it, and an empty cache."""

    def __init__(self, server: Server, tmp_path: Path, within: str = "") -> None:
        self.server, self.name = server, f"{within}/{tmp_path.name}".strip("/")
        server.make(self.name)
        self.cache, self.other = Cache(tmp_path / "cache"), Cache(tmp_path / "other")
        self.entries = [self.cache.add(os.urandom(SIZE)).entry(f"tensor{number}") for number in range(COUNT)]

    def remote(self, **options: Any) -> Remote:
        return Remote(config_from_text(self.server.config(self.name, **options)))

    def stored(self, entry: FileEntry) -> bytes | None:
        return self.server.read(self.name, entry.md5)

    def bytes_of(self, entry: FileEntry) -> bytes:
        return self.cache.path(entry.md5).read_bytes()

    def arrived(self) -> list[FileEntry]:
        """What has a name in the other cache, which must be whole, and nothing must lie about beside it."""
        here = [entry for entry in self.entries if self.other.path(entry.md5).exists()]
        assert all(self.other.path(entry.md5).read_bytes() == self.bytes_of(entry) for entry in here)
        assert len(state.files(self.other.root)) == len(here)
        return here


@pytest.fixture(autouse=True)
def _forgotten_here() -> Iterator[None]:
    """What the libraries forget is found by the collector, and should be found while it is ignored."""
    yield
    gc.collect()


@pytest.fixture
def place(request: pytest.FixtureRequest, server_of: Callable[[str], Server], tmp_path: Path) -> Place:
    return Place(server_of(request.param), tmp_path)


def of(kinds: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", kinds, indirect=True)


@of(WRITABLE)
def test_what_is_sent_is_there_and_comes_back(place: Place) -> None:
    remote = place.remote()
    assert remote.lacks(place.entries) == place.entries
    told: list[tuple[int, ...]] = []
    remote.push(place.cache, place.entries[1:], place.entries[:1], lambda *counts: told.append(counts))
    assert told[-1] == (COUNT, COUNT, COUNT * SIZE, COUNT * SIZE)
    assert [place.stored(entry) for entry in place.entries] == [place.bytes_of(entry) for entry in place.entries]
    assert remote.lacks(place.entries) == []
    told.clear()
    assert remote.pull(place.other, place.entries, lambda *counts: told.append(counts)) == COUNT
    assert told[-1] == (COUNT, COUNT, COUNT * SIZE, COUNT * SIZE)
    assert place.arrived() == place.entries
    assert remote.pull(place.other, place.entries) == 0


@of(SERVED)
def test_only_what_is_missing_goes_over_the_wire(place: Place) -> None:
    place.remote().push(place.cache, place.entries[1:])
    with Wire(place.server.port) as wire:
        remote = place.remote(port=wire.port)
        assert remote.lacks(place.entries) == place.entries[:1]
        remote.push(place.cache, place.entries[:1])
        assert SIZE < wire.moved < 1.5 * SIZE
        place.remote().pull(place.other, place.entries[1:])
        wire.mend()
        assert remote.pull(place.other, place.entries) == 1
        assert SIZE < wire.moved < 1.5 * SIZE


@of(SERVED)
def test_after_a_cut_what_arrived_stays_and_only_the_rest_comes(place: Place) -> None:
    place.remote().push(place.cache, place.entries)
    with Wire(place.server.port) as wire:
        wire.cut_after(int(3.5 * SIZE))
        with pytest.raises(RemoteFailed, match="run again: what arrived stays") as caught:
            place.remote(port=wire.port, jobs=2).pull(place.other, place.entries)
        assert "\n" not in str(caught.value)
        arrived = place.arrived()
        assert 1 <= len(arrived) <= 3
        wire.mend()
        assert place.remote(port=wire.port).pull(place.other, place.entries) == COUNT - len(arrived)
        assert wire.moved < (COUNT - len(arrived) + 0.9) * SIZE
    assert place.arrived() == place.entries


@of(SERVED)
def test_after_a_cut_no_half_has_a_name_there_and_only_the_rest_goes(place: Place) -> None:
    with Wire(place.server.port) as wire:
        wire.cut_after(int(3.5 * SIZE))
        with pytest.raises(RemoteFailed, match="what arrived stays"):
            place.remote(port=wire.port, jobs=2).push(place.cache, place.entries[:-1], place.entries[-1:])
        there = [entry for entry in place.entries if place.stored(entry) is not None]
        assert 1 <= len(there) <= 3
        assert all(place.stored(entry) == place.bytes_of(entry) for entry in there)
        assert place.entries[-1] not in there, "what names the others goes last"
        lacking = place.remote().lacks(place.entries)
        assert lacking == [entry for entry in place.entries if entry not in there]
        wire.mend()
        place.remote(port=wire.port).push(place.cache, lacking)
        assert wire.moved < (len(lacking) + 0.9) * SIZE
    assert all(place.stored(entry) == place.bytes_of(entry) for entry in place.entries)


@of([*WRITABLE, "http"])
def test_what_is_damaged_there_never_has_a_name_here(place: Place) -> None:
    remote, victim = filled(place), place.entries[3]
    whole = place.bytes_of(victim)
    place.server.write(place.name, victim.md5, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RemoteFailed, match="other bytes for tensor3 than weights"):
        remote.pull(place.other, place.entries)
    assert victim not in place.arrived()
    place.server.write(place.name, victim.md5, place.bytes_of(victim)[: SIZE // 2])
    with pytest.raises(RemoteFailed, match="does not have tensor3, or not whole"):
        remote.pull(place.other, place.entries)
    assert remote.lacks(place.entries) == [victim]
    if place.server.kind != "http":
        remote.push(place.cache, [victim])
        assert place.stored(victim) == place.bytes_of(victim), "half an object is sent again"


def filled(place: Place) -> Remote:
    """Puts the objects there, by way of the server's own folder where it takes none."""
    remote = place.remote()
    if place.server.kind == "http":
        shutil.copytree(place.cache.objects, place.server.folder / place.name / "files" / "md5")
    else:
        remote.push(place.cache, place.entries)
    return remote


@of(["http"])
def test_a_plain_web_server_is_read_from_and_takes_nothing(place: Place) -> None:
    # It may hang up before it has been sent all of what it does not take.
    with pytest.raises(RemoteFailed, match=r"takes no uploads: name another with --remote|[Bb]roken pipe|reset"):
        place.remote().push(place.cache, place.entries)
    with pytest.raises(RemoteFailed, match="cannot be reached, or holds nothing"):
        place.remote().pull(place.other, place.entries)
    assert filled(place).pull(place.other, place.entries) == COUNT
    assert place.arrived() == place.entries


@of(["ssh", "webdav", "http"])
def test_a_cut_before_anything_is_one_line(place: Place) -> None:
    with Wire(place.server.port) as wire:
        wire.cut_after(0)
        with pytest.raises(RemoteFailed) as caught:
            place.remote(port=wire.port).pull(place.other, place.entries[:1])
        assert "\n" not in str(caught.value)
        assert str(wire.port) in str(caught.value)


@of([*SERVED, "http"])
def test_who_does_not_answer_is_not_waited_for(place: Place) -> None:
    option = "read_timeout" if place.server.kind in ("s3", "http") else "timeout"
    with silence() as port, pytest.raises(RemoteFailed, match=r"no answer within 1 second|[Tt]ime") as caught:
        place.remote(port=port, **{option: 1}).pull(place.other, place.entries)
    assert "\n" not in str(caught.value)


@of(["s3", "webdav"])
def test_a_wrong_password_is_said_to_be_so(place: Place) -> None:
    with pytest.raises(RemoteFailed, match="check the credentials DVC has for it") as caught:
        place.remote(password="Xyzzy").pull(place.other, place.entries)
    assert "Xyzzy" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ssh", "webdav"])
def test_a_place_nobody_may_write_to_is_said_to_be_so(
    kind: str, server_of: Callable[[str], Server], tmp_path: Path
) -> None:
    place = Place(server_of(kind), tmp_path, READ_ONLY)
    with pytest.raises(RemoteFailed, match=r"may only be read|does not allow"):
        place.remote().push(place.cache, place.entries)
    assert not any(place.stored(entry) for entry in place.entries)


@of(["webdav"])
def test_a_folder_that_is_not_there_is_to_be_made(place: Place) -> None:
    shutil.rmtree(place.server.folder / place.name)
    with pytest.raises(RemoteFailed, match="make the bucket or folder it names"):
        place.remote().push(place.cache, place.entries)


@of(["s3"])
def test_a_bucket_that_is_not_there_is_to_be_made(place: Place) -> None:
    text = place.server.config(place.name).replace("s3://weights/", "s3://elsewhere/")
    with pytest.raises(RemoteFailed, match="make the bucket or folder it names"):
        Remote(config_from_text(text)).push(place.cache, place.entries)


# Whole commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(place: Place, repo: Path, tmp_path: Path) -> Path:
    """A model repository whose DVC remote is on the server; its password stays out of Git."""
    text = place.server.config(place.name)
    secret = re.findall(r"^    (?:password|secret_access_key) = .*\n", text, re.MULTILINE)
    (repo / ".dvc" / "config").write_text(text.replace(secret[0], ""))
    (tmp_path / "config.local").write_text(f"['remote \"storage\"']\n{secret[0]}")
    shutil.copy(tmp_path / "config.local", repo / ".dvc" / "config.local")
    (tmp_path / "model.onnx").write_bytes(support.wide_model().SerializeToString())
    support.git(repo, "commit", "-qam", "Elsewhere")
    assert support.gitmodel("save", "fraud", tmp_path / "model.onnx", "-m", "one", cwd=repo).returncode == 0
    return repo


def clone(shared: Path, tmp_path: Path, name: str) -> Path:
    copy = state.clone(shared, tmp_path / name)
    shutil.copy(tmp_path / "config.local", copy / ".dvc" / "config.local")
    return copy


@of(SERVED)
def test_gitmodel_and_dvc_bring_what_gitmodel_sent(place: Place, shared: Path, tmp_path: Path) -> None:
    sent = support.gitmodel("push", cwd=shared)
    assert sent.stderr == "5 objects sent to 'storage' (1 bundle is there)\n"
    weights = state.files(shared / "models" / "fraud" / "weights")
    ours, dvcs = clone(shared, tmp_path, "ours"), clone(shared, tmp_path, "dvcs")
    pulled = support.gitmodel("pull", cwd=ours)
    assert (pulled.returncode, pulled.stderr) == (0, "4 objects brought and verified (1 bundle is here)\n")
    assert state.files(ours / "models" / "fraud" / "weights") == weights
    assert support.run("dvc", "pull", "-q", cwd=dvcs).returncode == 0
    assert state.files(dvcs / "models" / "fraud" / "weights") == weights


@of(["ssh"])
def test_without_a_terminal_nobody_is_asked_for_a_password(place: Place, shared: Path) -> None:
    (shared / ".dvc" / "config.local").unlink()
    command = [str(support.BIN / "gitmodel"), "push"]
    done = subprocess.run(
        command,
        cwd=shared,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert done.returncode == 3
    assert re.search(r"error\[remote-failed\]: .*(asks for a password|check the credentials)", done.stderr)
    assert "Traceback" not in done.stderr


@of(["ssh", "webdav"])
def test_who_is_tired_of_waiting_gets_away(place: Place, shared: Path, tmp_path: Path) -> None:
    """The other side has fallen silent in the middle; Ctrl-C ends the command all the same."""
    assert support.gitmodel("push", cwd=shared).returncode == 0
    copy = clone(shared, tmp_path, "copy")
    cache = Cache(copy / ".dvc" / "cache")
    with Wire(place.server.port) as wire:
        wire.cut_after(200_000, silently=True)
        local = copy / ".dvc" / "config.local"
        local.write_text(local.read_text() + f"    url = {place.server.url(place.name, wire.port)}\n")
        running = subprocess.Popen(
            [str(support.BIN / "gitmodel"), "fetch"],
            cwd=copy,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert wire.used_up.wait(120)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode != 0
    assert "Traceback" not in said
    named = [path for path in cache.objects.glob("??/*") if path.is_file()]
    assert all(hashlib.md5(path.read_bytes()).hexdigest() == path.parent.name + path.name for path in named)
