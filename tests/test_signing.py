"""gitmodel.signing: a signature is for one request, one moment and one time; what reads the secret refuses a file that others read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel import signing
from gitmodel.signing import BadSecret, NotSigned, Verifier, read_secrets, sign

OLD, NEW = b"a" * 32, b"b" * 48
PATH = "/v2/repository/models/fraud/load"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_signed_request_counts_once() -> None:
    clock = Clock()
    verifier = Verifier([OLD], clock)
    headers = sign(OLD, "POST", PATH, b"{}", now=clock.now)
    verifier.check("POST", PATH, b"{}", headers)
    with pytest.raises(NotSigned, match="used before"):
        verifier.check("POST", PATH, b"{}", headers)
    verifier.check("POST", PATH, b"{}", sign(OLD, "POST", PATH, b"{}", now=clock.now))


@pytest.mark.parametrize(
    ("method", "path", "body"), [("GET", PATH, b"{}"), ("POST", PATH + "x", b"{}"), ("POST", PATH, b"{ }")]
)
def test_it_is_for_that_request_alone(method: str, path: str, body: bytes) -> None:
    clock = Clock()
    headers = sign(OLD, "POST", PATH, b"{}", now=clock.now)
    with pytest.raises(NotSigned, match="the signature is wrong"):
        Verifier([OLD], clock).check(method, path, body, headers)


@pytest.mark.parametrize("name", [signing.TIME, signing.NONCE, signing.SIGNATURE])
def test_every_header_is_needed_and_none_can_be_changed(name: str) -> None:
    clock = Clock()
    verifier = Verifier([OLD], clock)
    headers = sign(OLD, "POST", PATH, b"", now=clock.now)
    with pytest.raises(NotSigned, match="is not signed"):
        verifier.check("POST", PATH, b"", {key: value for key, value in headers.items() if key != name})
    changed = {**headers, name: headers[name][:-1] + ("1" if headers[name][-1] != "1" else "2")}
    with pytest.raises(NotSigned):
        verifier.check("POST", PATH, b"", changed)
    verifier.check("POST", PATH, b"", headers)  # what was refused used nothing up


@pytest.mark.parametrize(("off", "counts"), [(-61, False), (-60, True), (0, True), (60, True), (61, False)])
def test_it_is_of_this_minute(off: int, counts: bool) -> None:
    clock = Clock()
    headers = sign(OLD, "POST", PATH, b"", now=clock.now + off)
    if counts:
        Verifier([OLD], clock).check("POST", PATH, b"", headers)
    else:
        with pytest.raises(NotSigned, match="61 s off"):
            Verifier([OLD], clock).check("POST", PATH, b"", headers)


def test_a_replay_is_refused_for_as_long_as_its_time_would_count() -> None:
    clock = Clock()
    verifier = Verifier([OLD], clock)
    headers = sign(OLD, "POST", PATH, b"", now=clock.now + 60)
    verifier.check("POST", PATH, b"", headers)
    for _ in range(125):
        clock.now += 1
        with pytest.raises(NotSigned):
            verifier.check("POST", PATH, b"", headers)
    verifier.check("POST", PATH, b"", sign(OLD, "POST", PATH, b"", now=clock.now))
    assert len(verifier._seen) == 1, "what no longer counts is forgotten"


def test_two_secrets_count_while_one_is_replaced() -> None:
    clock = Clock()
    verifier = Verifier([NEW, OLD], clock)
    for key in (OLD, NEW):
        verifier.check("POST", PATH, b"", sign(key, "POST", PATH, b"", now=clock.now))
    with pytest.raises(NotSigned):
        verifier.check("POST", PATH, b"", sign(b"c" * 32, "POST", PATH, b"", now=clock.now))


@given(
    st.dictionaries(st.sampled_from([signing.TIME, signing.NONCE, signing.SIGNATURE]), st.text(max_size=80)),
    st.binary(max_size=20),
)
def test_nothing_made_up_counts(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(NotSigned):
        Verifier([OLD]).check("POST", PATH, body, headers)


def secret(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_secrets_are_lines_of_a_private_file(tmp_path: Path) -> None:
    path = secret(tmp_path / "s", f"\n{NEW.decode()}\r\n  {OLD.decode()}  \n")
    assert read_secrets(path) == (NEW, OLD)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("a" * 32, 0o640, "others may read"),
        ("a" * 32, 0o604, "others may read"),
        ("a" * 31, 0o600, "one or two lines"),
        ("", 0o600, "one or two lines"),
        ("a" * 1025, 0o600, "one or two lines"),
        ("\n".join(["a" * 32] * 3), 0o600, "one or two lines"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    path = secret(tmp_path / "s", text, mode)
    with pytest.raises(BadSecret, match=said) as refused:
        read_secrets(path)
    assert str(path) in str(refused.value)


def test_no_file_no_secret(tmp_path: Path) -> None:
    with pytest.raises(BadSecret, match=r"cannot read .*No such file"):
        read_secrets(tmp_path / "none")
    with pytest.raises(BadSecret):
        read_secrets(tmp_path)
