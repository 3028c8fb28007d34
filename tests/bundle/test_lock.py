"""``weights.lock``: its exact bytes, its round trip, and that a damaged or hostile one is refused."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.bundle import lock
from gitmodel.bundle.lock import HEADER, FileEntry, InvalidLock, Lock, TensorEntry, inside
from gitmodel.bundle.signature import DTYPES
from tests.bundle import strategies

SHA, MD5 = "0123456789abcdef" * 4, "0123456789abcdef" * 2

_digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
_parts = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=8)
_paths = st.lists(_parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)
_tensors = st.lists(
    st.builds(
        TensorEntry,
        name=strategies.texts,
        dtype=st.sampled_from(sorted(DTYPES)),
        shape=st.lists(st.integers(0, 2**40), max_size=4).map(tuple),
        sha256=_digests,
        file=_paths,
    ),
    max_size=6,
    unique_by=lambda entry: entry.name,
)
_files = st.lists(
    st.builds(FileEntry, path=_paths, size=st.integers(0, 2**60), sha256=_digests, md5=_digests.map(lambda d: d[:32])),
    max_size=6,
    unique_by=lambda entry: entry.path,
)
locks = st.builds(Lock.of, _tensors, _files)


def parse(*lines: str) -> Lock:
    return Lock.from_text("\n".join([HEADER, *lines]) + "\n", "weights.lock")


def test_the_exact_bytes_of_a_small_lock() -> None:
    made = Lock.of(
        [
            TensorEntry("dense/kernel", "float32", (784, 10), SHA, "tensors/dense%2Fkernel.h5"),
            TensorEntry("", "int64", (), SHA, "weights.h5"),
            TensorEntry("a b\n\\é", "bool", (0, 3), SHA, "weights.h5"),
        ],
        [FileEntry("weights.h5", 2048, SHA, MD5), FileEntry("model.onnx", 12, SHA, MD5)],
    )
    text = (
        "# gitmodel weights.lock v1\n"
        f"tensor \\u int64 scalar {SHA} weights.h5\n"
        f"tensor a\\u0020b\\u000a\\u005cé bool 0x3 {SHA} weights.h5\n"
        f"tensor dense/kernel float32 784x10 {SHA} tensors/dense%2Fkernel.h5\n"
        f"file model.onnx 12 {SHA} {MD5}\n"
        f"file weights.h5 2048 {SHA} {MD5}\n"
    )
    assert made.to_text() == text
    assert Lock.from_text(text.encode(), "weights.lock") == made
    assert made.digest == hashlib.sha256(text.encode()).hexdigest()
    assert made.size == 2060


def test_a_file_is_found_by_its_path() -> None:
    entry = FileEntry("weights.h5", 1, SHA, MD5)
    made = Lock.of([], [entry])
    assert made.file("weights.h5") is entry
    assert made.file("model.onnx") is None


@given(locks)
def test_a_lock_is_read_as_it_was_written(made: Lock) -> None:
    text = made.to_text()
    assert Lock.from_text(text, "f") == made
    assert Lock.from_text(text.encode(), "f").digest == made.digest


@given(locks)
def test_a_lock_is_one_line_per_entry_for_any_reader_of_lines(made: Lock) -> None:
    lines = made.to_text().splitlines()
    assert len(lines) == 1 + len(made.tensors) + len(made.files)
    assert all(len(line.split()) in (5, 6) for line in lines[1:])


@given(_tensors, _files, st.data())
def test_the_order_in_which_entries_are_given_does_not_matter(
    tensors: list[TensorEntry], files: list[FileEntry], data: st.DataObject
) -> None:
    shuffled = Lock.of(data.draw(st.permutations(tensors)), data.draw(st.permutations(files)))
    assert shuffled.to_text() == Lock.of(tensors, files).to_text()


def test_windows_line_ends_are_read() -> None:
    made = Lock.of([], [FileEntry("weights.h5", 1, SHA, MD5)])
    assert Lock.from_text(made.to_text().replace("\n", "\r\n"), "f") == made


HOSTILE_PATHS = [
    "../x", "a/../../x", "a/..", "..", ".", "./x", "a/./x", "a//x", "a/", "/etc/passwd", "/", "//x", "C:\\x", "a\\..\\x",
    "\\\\server\\x", "a\0b", "",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_a_path_that_leaves_its_folder_or_has_two_spellings_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        inside(path)
    escaped = lock._escape(path)
    with pytest.raises(InvalidLock, match="line 2"):
        parse(f"file {escaped} 1 {SHA} {MD5}")
    with pytest.raises(InvalidLock, match="line 2"):
        parse(f"tensor x int8 1 {SHA} {escaped}")


def test_escaped_dots_are_dots() -> None:
    with pytest.raises(InvalidLock, match="leaves its folder"):
        parse(f"file \\u002e\\u002e/x 1 {SHA} {MD5}")


@pytest.mark.parametrize("path", ["x", "a/b", "tensors/a%2Fb.h5", "..x", "x..", "...", "~", "a b", "-rf", "é"])
def test_a_path_below_the_folder_passes(path: str) -> None:
    assert inside(path) == path


def test_a_file_named_twice_is_refused() -> None:
    with pytest.raises(InvalidLock, match="names a file twice"):
        parse(f"file a 1 {SHA} {MD5}", f"file a 2 {SHA} {MD5}")


def test_a_tensor_named_twice_is_refused() -> None:
    with pytest.raises(InvalidLock, match="twice"):
        parse(f"tensor a int8 1 {SHA} f", f"tensor a int8 2 {SHA} f")


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "directory a",
        "# a comment",
        "file",
        f"file a 1 {SHA}",
        f"file a 1 {SHA} {MD5} more",
        f"file a -1 {SHA} {MD5}",
        f"file a x {SHA} {MD5}",
        f"file a +1 {SHA} {MD5}",
        f"file a 1_0 {SHA} {MD5}",
        f"file a \u0661 {SHA} {MD5}",
        f"file a {'9' * 5000} {SHA} {MD5}",
        f"file a 1 {SHA.upper()} {MD5}",
        f"file a 1 {SHA[:-1]} {MD5}",
        f"file a 1 {SHA}0 {MD5}",
        f"file a 1 {SHA} {MD5[:-1]}",
        f"file a 1 {SHA} {MD5.replace('0', 'g')}",
        f"tensor a int8 1 {SHA}",
        f"tensor a int8 1 {SHA} f more",
        f"tensor a int8 -1 {SHA} f",
        f"tensor a int8 2x-1 {SHA} f",
        f"tensor a int8 x {SHA} f",
        f"tensor a int8 2x {SHA} f",
        f"tensor a int8 1_0 {SHA} f",
        f"tensor a int8  {SHA} f",
        f"tensor a int8 1 {SHA[1:]} f",
        f"tensor a  1 {SHA} f",
        f"tensor a object 1 {SHA} f",
    ],
)
def test_a_damaged_line_is_refused_by_its_number(line: str) -> None:
    with pytest.raises(InvalidLock, match=r"^weights\.lock line 3: "):
        parse(f"file good 1 {SHA} {MD5}", line, f"file last 1 {SHA} {MD5}")


@pytest.mark.parametrize("line", [f"tensor a int8 1 {SHA}", "tensor", f"file a 1 {SHA}"])
def test_a_line_that_is_cut_short_is_said_not_to_be_whole(line: str) -> None:
    with pytest.raises(InvalidLock, match=r"^weights\.lock line 2: it is not whole"):
        parse(line)
    with pytest.raises(InvalidLock, match="line 2: there is more than belongs there"):
        parse(f"{line}{' more' * 6}")


@pytest.mark.parametrize("data", [b"", b"\n", b"# gitmodel weights.lock v2\n", b"file a\n", b"\xef\xbb\xbf# gitmodel"])
def test_a_file_without_the_header_is_no_lock(data: bytes) -> None:
    with pytest.raises(InvalidLock, match="does not begin with"):
        Lock.from_text(data, "weights.lock")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidLock, match="is not text"):
        Lock.from_text(HEADER.encode() + b"\n\xff", "weights.lock")


def test_a_lock_beyond_the_limit_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "MAX_BYTES", 100)
    with pytest.raises(InvalidLock, match="101 bytes"):
        Lock.from_text(b"x" * 101, "weights.lock")


@given(locks.filter(lambda made: made.tensors or made.files), st.data())
def test_a_lock_cut_short_never_reads_as_the_whole(made: Lock, data: st.DataObject) -> None:
    text = made.to_text()
    cut = text[: data.draw(st.integers(0, len(text) - 2))]
    try:
        read = Lock.from_text(cut, "f")
    except InvalidLock:
        return
    assert read.digest != made.digest
