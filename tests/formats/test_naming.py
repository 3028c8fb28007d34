"""Names of tensor files: readable, legal, short enough, and different even where case is ignored."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.formats.naming import MAX_BYTES, tensor_files

#: What it runs again and again is measured by the tests of each part; tracing it would double its time.
pytestmark = pytest.mark.no_cover

#: Names that differ in case, in length and in what they are escaped to, and names that look like the outcome.
_names = st.lists(
    st.text("aAbB%2F/._-~ é", max_size=4) | st.text(max_size=12) | st.text("aA", min_size=175, max_size=185),
    max_size=8,
    unique=True,
)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("weight", "tensors/weight.h5"),
        ("layer1.weight_0-x", "tensors/layer1.weight_0-x.h5"),
        ("dense/kernel:0", "tensors/dense%2Fkernel%3A0.h5"),
        ("a b", "tensors/a%20b.h5"),
        ("é", "tensors/%C3%A9.h5"),
        ("a%2Fb", "tensors/a%252Fb.h5"),
        ("../../evil", "tensors/..%2F..%2Fevil.h5"),
        ("~root", "tensors/%7Eroot.h5"),
        ("", f"tensors/-{digest('')}.h5"),
        (".", f"tensors/.-{digest('.')}.h5"),
        ("..", f"tensors/..-{digest('..')}.h5"),
    ],
)
def test_what_a_tensor_file_is_called(name: str, file: str) -> None:
    assert tensor_files([name]) == {name: file}


@given(_names)
def test_files_are_legal_short_and_different_without_case(names: list[str]) -> None:
    files = tensor_files(names)
    assert list(files) == names
    assert len({file.casefold() for file in files.values()}) == len(names)
    for file in files.values():
        assert re.fullmatch(r"tensors/[A-Za-z0-9._%-]+\.h5", file)
        assert len(file.removeprefix("tensors/").removesuffix(".h5")) <= MAX_BYTES


def test_names_that_differ_in_case_alone_get_different_files() -> None:
    files = tensor_files(["W", "w", "v"])
    assert files == {"W": f"tensors/W-{digest('W')}.h5", "w": f"tensors/w-{digest('w')}.h5", "v": "tensors/v.h5"}


def test_a_name_that_looks_like_the_outcome_of_another_gets_its_own_file() -> None:
    names = ["a", "A", f"a-{digest('a')}", f"A-{digest('A')}"]
    assert len(set(tensor_files(names).values())) == 4


@pytest.mark.parametrize(("length", "short"), [(MAX_BYTES, False), (MAX_BYTES + 1, True), (5000, True)])
def test_a_long_name_is_shortened_with_its_hash(length: int, short: bool) -> None:
    name = "x" * length
    file = tensor_files([name])[name]
    assert (digest(name) in file) is short
    assert len(file) == len("tensors/.h5") + MAX_BYTES


def test_long_names_with_one_beginning_get_different_files() -> None:
    names = ["é" * 200 + str(number) for number in range(20)]
    assert len(set(tensor_files(names).values())) == 20


def test_a_name_keeps_its_file_when_others_come_and_go() -> None:
    assert tensor_files(["a/b", "c"])["a/b"] == tensor_files(["a/b"])["a/b"]
