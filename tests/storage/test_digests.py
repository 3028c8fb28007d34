"""gitmodel.storage.digests: what has not changed is not hashed again, what may have changed is, and the table may be lost.

Whether a digest is remembered shows by a lie: a state is noted with a digest that is none, and asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PosixPath
from typing import TypeVar

import pytest

from gitmodel.storage import digests as module
from gitmodel.storage.digests import Digests, hash_file, is_settled

LIE = "0" * 64
HOUR_NS = 3600 * 10**9 + 1
T = TypeVar("T")

_OF = """
import sys
from pathlib import Path
from gitmodel.storage.digests import Digests
from tests import support
digests = Digests(Path(sys.argv[1]))
for path in sys.argv[2:]:
    print(digests.of(Path(path)))
"""
_OF_WITHOUT_ROOM = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n{_OF}"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "state" / "digests.sqlite"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that nobody has changed for an hour."""
    return aged(tmp_path / "file", b"one")


def aged(path: Path, data: bytes, age: int = HOUR_NS) -> Path:
    path.write_bytes(data)
    at = time.time_ns() - age
    os.utime(path, ns=(at, at))
    return path


def true(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def session(table: Path, action: Callable[[Digests], T]) -> T:
    """What the action gives with digests that are closed, and so written down, afterwards."""
    digests = Digests(table)
    result = action(digests)
    del digests
    return result


def ask(table: Path, path: Path) -> str:
    return session(table, lambda digests: digests.of(path))


def rows(table: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(table) as db:
        found = db.execute("SELECT * FROM digests").fetchall()
    db.close()
    return found


def child(code: str, *arguments: Path, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [*(prefix or []), sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_file_is_known_by_its_sha256(file: Path, table: Path) -> None:
    assert hash_file(file) == Digests().of(file) == Digests(table).of(file) == true(file)


def test_what_has_not_changed_is_not_hashed_again(file: Path) -> None:
    digests = Digests()
    digests.note(file.stat(), LIE)
    assert digests.of(file) == LIE


def in_place(path: Path) -> None:
    with path.open("r+b") as opened:
        opened.write(b"two")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"two")
    other.replace(path)


def replaced_with_its_times(path: Path) -> None:
    before = path.stat()
    replaced(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def grown_with_its_times(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"one and more")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [in_place, replaced, replaced_with_its_times, grown_with_its_times, emptied])
def test_a_changed_file_is_hashed_again(file: Path, table: Path, change: Callable[[Path], None]) -> None:
    digests = Digests(table)
    before = digests.of(file)
    digests.note(file.stat(), LIE)
    assert digests.of(file) == LIE
    change(file)
    assert digests.of(file) == true(file) != before
    del digests
    assert ask(table, file) == true(file)


def test_a_file_that_could_change_again_unseen_is_not_remembered(file: Path, table: Path) -> None:
    digests = Digests(table)
    at = time.time_ns() + HOUR_NS  # as fresh as can be, however slow this machine is
    for data in (b"one", b"two"):
        file.write_bytes(data)
        os.utime(file, ns=(at, at))
        assert digests.of(file) == true(file)
    del digests
    file.write_bytes(b"owt")
    os.utime(file, ns=(at, at))
    assert ask(table, file) == true(file)


def test_a_file_rewritten_while_it_is_hashed_is_not_remembered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing a large file takes longer than the clock's tick, and it may have been changed in the tick it was looked at."""

    def slowly(path: Path) -> str:
        digest, at = hash_file(path), path.stat().st_mtime_ns
        path.write_bytes(b"two")
        os.utime(path, ns=(at, at))
        wait_until_settled(at)
        return digest

    digests = Digests()
    os.utime(file)
    monkeypatch.setattr(module, "hash_file", slowly)
    digests.of(file)
    monkeypatch.undo()
    assert digests.of(file) == true(file)


def wait_until_settled(at: int) -> None:
    """Returns when a file changed at ``at`` is old enough to be believed."""
    while not is_settled(at):
        time.sleep(0.001)


def test_a_file_system_that_counts_in_seconds_is_given_more_time() -> None:
    second = time.time_ns() // 10**9 * 10**9
    assert not is_settled(second)
    assert is_settled(second - 10**9 + 1)
    assert is_settled(second - 10 * 10**9)


def test_a_file_that_is_gone_is_the_callers_to_deal_with(tmp_path: Path, table: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Digests(table).of(tmp_path / "gone")


# The table ------------------------------------------------------------------------------------------------------------


def test_what_was_hashed_is_known_to_the_next_process(file: Path, table: Path) -> None:
    done = child(_OF, table, file)
    assert (done.stdout.split(), done.stderr) == ([true(file)], "")
    ((*state, digest),) = rows(table)
    info = file.stat()
    assert (state, digest) == ([info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns], true(file))
    session(table, lambda digests: digests.note(info, LIE))
    assert child(_OF, table, file).stdout.split() == [LIE], "asked, not hashed"


def test_a_state_replaces_the_one_before(file: Path, table: Path) -> None:
    ask(table, file)
    aged(file, b"two", age=HOUR_NS // 2)
    ask(table, file)
    assert [row[-1] for row in rows(table)] == [true(file)]


def truncated(table: Path) -> None:
    os.truncate(table, table.stat().st_size // 2)


def of_random_bytes(table: Path) -> None:
    table.write_bytes(os.urandom(20_000))


def of_no_bytes(table: Path) -> None:
    table.write_bytes(b"")


def with_damaged_pages(table: Path) -> None:
    data = table.read_bytes()
    table.write_bytes(data[:100] + b"\xff" * (len(data) - 100))


@pytest.fixture
def written(table: Path, file: Path) -> Path:
    """A table that has a lie about the file."""
    session(table, lambda digests: digests.note(file.stat(), LIE))
    for name in (f"{table.name}-wal", f"{table.name}-shm"):
        table.with_name(name).unlink(missing_ok=True)
    return table


@pytest.mark.parametrize("damage", [truncated, of_random_bytes, of_no_bytes, with_damaged_pages])
def test_a_damaged_table_costs_time_alone_and_is_replaced(
    written: Path, file: Path, damage: Callable[[Path], None]
) -> None:
    damage(written)
    done = child(_OF, written, file)
    assert (done.stdout.split(), done.stderr, done.returncode) == ([true(file)], "", 0)
    ask(written, file)
    assert [row[-1] for row in rows(written)] == [true(file)], "the next one is whole again"


def test_a_table_of_another_kind_is_left_alone(table: Path, file: Path) -> None:
    table.parent.mkdir()
    with sqlite3.connect(table) as db:
        db.execute("CREATE TABLE digests (name TEXT)")
        db.execute("INSERT INTO digests VALUES ('of a later version')")
    db.close()
    assert ask(table, file) == true(file)
    assert rows(table) == [("of a later version",)]


def in_a_file(tmp_path: Path) -> Path:
    (tmp_path / "state").write_bytes(b"")
    return tmp_path / "state" / "digests.sqlite"


def that_is_a_folder(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "digests.sqlite"
    path.mkdir(parents=True)
    return path


def where_nothing_can_be_made(tmp_path: Path) -> Path:
    return Path("/proc/digests/digests.sqlite")


@pytest.mark.parametrize("place", [in_a_file, that_is_a_folder, where_nothing_can_be_made])
def test_a_table_that_cannot_be_made_costs_time_alone(
    tmp_path: Path, file: Path, place: Callable[[Path], Path]
) -> None:
    done = child(_OF, place(tmp_path), file, file)
    assert (done.stdout.split(), done.stderr) == ([true(file)] * 2, "")


def test_a_full_disk_costs_time_alone(file: Path, table: Path) -> None:
    done = child(_OF_WITHOUT_ROOM, table, file, file)
    assert (done.stdout.split(), done.stderr, done.returncode) == ([true(file)] * 2, "", 0)
    assert ask(table, file) == true(file)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write anywhere")
def test_a_table_that_may_only_be_read_costs_time_alone(written: Path, file: Path) -> None:
    rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    before = written.read_bytes()
    aged(file, b"two", age=HOUR_NS // 2)
    written.chmod(0o444)
    written.parent.chmod(0o555)
    try:
        done = child(_OF, written, file, prefix=rights if os.geteuid() == 0 else [])
    finally:
        written.parent.chmod(0o755)
    assert (done.stdout.split(), done.stderr) == ([true(file)], "")
    assert written.read_bytes() == before


@pytest.fixture
def locked(written: Path) -> Iterator[Path]:
    """The table with another process's lock on it."""
    db = sqlite3.connect(written, isolation_level=None)
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    db.execute("DELETE FROM digests")
    yield written
    db.execute("ROLLBACK")
    db.close()


def test_a_locked_table_costs_time_alone(locked: Path, file: Path) -> None:
    assert ask(locked, file) == true(file)


def test_a_table_is_there_again_when_the_lock_is_gone(written: Path, file: Path) -> None:
    db = sqlite3.connect(written, isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    assert ask(written, file) in (true(file), LIE)
    db.execute("ROLLBACK")
    db.close()
    assert ask(written, file) == LIE


def test_several_threads_may_ask_at_once(tmp_path: Path, table: Path) -> None:
    files = [aged(tmp_path / str(number), b"%d" % number) for number in range(40)]
    start = threading.Barrier(8)

    def all_of_them(digests: Digests) -> list[str]:
        start.wait()
        return [digests.of(path) for path in files]

    def eight_times(digests: Digests) -> list[list[str]]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(all_of_them, [digests] * 8))

    assert session(table, eight_times) == [[true(path) for path in files]] * 8
    assert {row[-1] for row in rows(table)} == {true(path) for path in files}


def test_several_processes_may_ask_at_once(tmp_path: Path, table: Path) -> None:
    files = [aged(tmp_path / str(number), b"%d" % number) for number in range(40)]
    command = [sys.executable, "-c", _OF, str(table), *map(str, files)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:
        out, error = process.communicate()
        assert (out.split(), error, process.returncode) == ([true(path) for path in files], "", 0)
    with sqlite3.connect(table) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    assert {row[-1] for row in rows(table)} <= {true(path) for path in files}


class Odd(PosixPath):
    """A path whose file has the numbers that ``info`` says."""

    info: os.stat_result

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return self.info


def info_with(path: Path, *, inode: int, changed: int) -> os.stat_result:
    real = path.stat()
    names = {"st_mtime_ns": changed, "st_mtime": changed / 1e9}
    return os.stat_result((real.st_mode, inode, real.st_dev, 1, 0, 0, real.st_size, 0, changed // 10**9, 0), names)


@pytest.mark.parametrize("inode", [1, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("changed", [10**18, -(10**18), 2**63 - 1, 10**19], ids=["2001", "1938", "2262", "2286"])
def test_the_numbers_of_a_file_may_be_of_any_size(file: Path, table: Path, inode: int, changed: int) -> None:
    path = Odd(file)
    path.info = info_with(file, inode=inode, changed=changed)
    assert session(table, lambda digests: digests.of(path)) == true(file)
    session(table, lambda digests: digests.note(path.info, LIE))
    assert ask(table, path) == LIE
    assert ask(table, file) == true(file)


def test_a_file_from_a_time_far_away_is_hashed(file: Path, table: Path) -> None:
    try:
        os.utime(file, ns=(10**19, 10**19))
    except OverflowError:
        pytest.skip("this file system has no such times")
    assert ask(table, file) == ask(table, file) == true(file)


def test_inodes_that_differ_in_the_highest_bit_alone_are_two(file: Path, table: Path) -> None:
    one, other = Odd(file), Odd(file)
    one.info = info_with(file, inode=5, changed=10**18)
    other.info = info_with(file, inode=5 + 2**63, changed=10**18)
    session(table, lambda digests: digests.note(one.info, "1"))
    session(table, lambda digests: digests.note(other.info, "2"))
    assert (ask(table, one), ask(table, other)) == ("1", "2")


def test_a_memory_that_says_no_is_not_believed(file: Path, table: Path) -> None:
    """A page of the table may have gone bad on the disk."""
    session(table, lambda digests: digests.note(file.stat(), LIE))
    assert session(table, lambda digests: digests.fits(file, true(file)))
    assert ask(table, file) == true(file), "and it is put right"
    assert not session(table, lambda digests: digests.fits(file, LIE))
    session(table, lambda digests: digests.note(file.stat(), LIE))
    assert session(table, lambda digests: digests.fits(file, LIE)), "one that says yes is"
    with pytest.raises(FileNotFoundError):
        Digests().fits(file.with_name("gone"), LIE)


def test_what_is_known_can_be_written_down_at_once(file: Path, table: Path) -> None:
    digests = Digests(table)
    digests.note(file.stat(), LIE)
    digests.flush()
    assert ask(table, file) == LIE
    digests.flush()
    Digests().flush()


def test_much_is_written_down_before_the_end(file: Path, table: Path) -> None:
    digests = Digests(table)
    for inode in range(1, 1501):
        digests.note(info_with(file, inode=inode, changed=10**18), LIE)
    assert 1000 <= len(rows(table)) <= 1500
    del digests
    assert len(rows(table)) == 1500


def test_what_is_hashed_anew_takes_the_place_of_what_was_remembered(file: Path, table: Path) -> None:
    session(table, lambda digests: digests.note(file.stat(), LIE))
    assert session(table, lambda digests: digests.anew(file)) == true(file)
    assert ask(table, file) == true(file)


def test_a_file_whose_bytes_changed_and_not_its_state_is_known_to_have_gone_bad(file: Path, table: Path) -> None:
    def is_rotten(digests: Digests) -> bool:
        return digests.is_rotten(file)

    assert not session(table, is_rotten), "nothing is known of it"
    ask(table, file)
    assert not session(table, is_rotten)
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not session(table, is_rotten), "nobody has looked"
    for _ in range(2):
        assert session(table, lambda digests: digests.anew(file)) == true(file) == ask(table, file)
        assert session(table, is_rotten)
    assert not session(table, lambda digests: digests.fits(file, LIE))
    assert session(table, is_rotten)
    aged(file, b"owt", age=HOUR_NS // 2)
    assert not session(table, is_rotten), "somebody has written it"
