"""Facts about what lies beside a model: class lists by output, vocabularies, thresholds and other files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.compat import assets, rules, vocabulary
from gitmodel.compat.changes import Change
from gitmodel.versions import Bump


def kinds(old: dict[str, bytes], new: dict[str, bytes]) -> list[tuple[str, str]]:
    return [(change.kind, change.at) for change in assets.compare(old, new)]


def test_files_that_came_went_and_changed() -> None:
    old = {"a.bin": b"1", "b.bin": b"1", "c.bin": b"1", "labels.txt": b"cat"}
    assert kinds(old, {"b.bin": b"2", "c.bin": b"1", "d.bin": b"1", "labels.txt": b"dog"}) == [
        ("asset-removed", "assets/a.bin"),
        ("asset-changed", "assets/b.bin"),
        ("asset-added", "assets/d.bin"),
    ]


@pytest.mark.parametrize("name", ["thresholds.json", "threshold.yaml", "ner/Thresholds.YML", "thresholds.csv"])
def test_thresholds_are_told_from_other_files(name: str) -> None:
    assert kinds({name: b"0.5"}, {name: b"0.25"}) == [("postprocessing-changed", f"assets/{name}")]


# Class lists ----------------------------------------------------------------------------------------------------------


def lists(old: dict[str, bytes], new: dict[str, bytes], *, extensible: bool = False) -> list[Change]:
    named = {"topic": "topics.txt"}
    return list(assets.compare_lists(old, new, named, named, extensible=extensible))


def test_class_lists_of_several_outputs_are_told_apart() -> None:
    old = {"labels.txt": b"cat\ndog\n", "topics.txt": b"art\nlaw\n"}
    (change,) = lists(old, {**old, "topics.txt": b"law\nart\n"})
    assert (change.kind, change.at, change.args["output"]) == ("label-reordered", "labels.topic", "topic")
    assert rules.judge(change).message.startswith("output 'topic': the class labels")
    (own,) = lists(old, {**old, "labels.txt": b"dog\ncat\n"})
    assert (own.kind, own.at, own.args.get("output")) == ("label-reordered", "labels", None)


def test_a_class_list_may_move_to_another_file_and_may_not_vanish() -> None:
    old = {"topics.txt": b"art\nlaw\n"}
    before = {"topic": "topics.txt"}
    assert list(assets.compare_lists(old, {"t.txt": b"art\nlaw\n"}, before, {"topic": "t.txt"}, extensible=False)) == []
    (change,) = assets.compare_lists(old, old, before, {}, extensible=False)
    assert (change.kind, change.at) == ("labels-removed", "labels.topic")


@pytest.mark.parametrize(("extensible", "bump"), [(True, Bump.MINOR), (False, Bump.MAJOR)])
def test_what_an_appended_class_owes_depends_on_what_clients_were_told(extensible: bool, bump: Bump) -> None:
    old, new = {"labels.txt": b"a\nb"}, {"labels.txt": b"a\nb\nc\nd"}
    found = lists(old, new, extensible=extensible)
    assert [rules.judge(change).bump["named"] for change in found] == [bump, bump]


def test_only_appended_classes_are_expected() -> None:
    (change,) = lists({"labels.txt": b"a\nb"}, {"labels.txt": b"x\nb"}, extensible=True)
    assert "extensible" not in change.args
    assert rules.judge(change).bump["named"] is Bump.MAJOR


def dim(name: str, old: int, new: int) -> Change:
    return Change("output-dim-changed", f"outputs.{name}[1]", old, new, {"name": name, "axis": 1})


def test_an_output_that_grew_with_expected_classes_is_explained_and_no_other() -> None:
    found = lists({"labels.txt": b"a\nb"}, {"labels.txt": b"a\nb\nc"}, extensible=True)
    marked = assets.explained([*found, dim("y", 2, 3), dim("z", 2, 4), dim("z", 3, 2)])
    assert [change.args.get("extensible", False) for change in marked] == [True, True, False, False]
    named = lists({"topics.txt": b"a\nb"}, {"topics.txt": b"a\nb\nc"}, extensible=True)
    marked = assets.explained([*named, dim("topic", 2, 3), dim("other", 2, 3)])
    assert [change.args.get("extensible", False) for change in marked] == [True, True, False]
    plain = lists({"labels.txt": b"a\nb"}, {"labels.txt": b"a\nb\nc"})
    assert assets.explained([*plain, dim("y", 2, 3)]) == [*plain, dim("y", 2, 3)]


# Vocabularies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["vocab.txt", "vocab.json", "vocab_bpe.txt", "en/vocab.txt", "tokenizer.json", "merges.txt"]
)
def test_what_is_a_vocabulary(name: str) -> None:
    assert vocabulary.is_vocabulary(name)
    assert kinds({name: b"x"}, {name: b"y"}) == [("vocabulary-changed", f"assets/{name}")]


@pytest.mark.parametrize("name", ["labels.txt", "vocab.bin", "vocabulary", "tokenizer_config.json", "myvocab.txt"])
def test_what_is_none(name: str) -> None:
    assert not vocabulary.is_vocabulary(name)


def tokenizer(vocab: Any, **more: Any) -> bytes:
    return json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": vocab, **more}}).encode()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("vocab.txt", b"a\nb\n", b"a\nb\nc\n"),
        ("vocab.txt", b"a\r\nb\r\n", b"a\nb\nc"),
        ("vocab.txt", "a\u2028\nb\n".encode(), "a\u2028\nb\nc\n".encode()),
        ("vocab.json", b'{"a": 0, "b": 1}', b'{"b": 1, "c": 2, "a": 0}'),
        ("vocab.json", b'{"a": 0, "b": 9}', b'{"b": 9, "c": 5, "a": 0}'),
        ("vocab.json", b'["a", "b"]', b'["a", "b", "c"]'),
        ("tokenizer.json", tokenizer({"a": 0}), tokenizer({"a": 0, "b": 1})),
        ("tokenizer.json", tokenizer([["a", -1.5]]), tokenizer([["a", -1.5], ["b", -2.5]])),
    ],
)
def test_tokens_beyond_the_old_ones_are_appended(name: str, old: bytes, new: bytes) -> None:
    found = vocabulary.compare(name, old, new)
    assert found.appended == 1
    assert found.what.startswith("1 more, from ")


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [
        ("vocab.txt", b"a\nb\n", b"b\na\n", "0 stands for 'b' instead of 'a'"),
        ("vocab.txt", b"a\nb\n", b"a\n", "1 stands for nothing instead of 'b'"),
        ("vocab.txt", b"a\nb\n", b"x\na\nb\n", "0 stands for 'x' instead of 'a'"),
        ("vocab.json", b'{"a": 0}', b'{"a": 0, "b": 0}', "0 stands for 'a' and 'b' instead of 'a'"),
        ("vocab.json", b'{"a": 0}', b'{"a": 0', "it cannot be read as one"),
        ("vocab.json", b'{"a": 0}', b'{"a": 0, "a": 1}', "it cannot be read as one"),
        ("vocab.json", b'{"a": 0}', b'{"a": "x"}', "it cannot be read as one"),
        ("vocab.json", b'{"a": 0}', b"7", "it cannot be read as one"),
        ("vocab.txt", b"a\n", b"\xff\xfe", "it cannot be read as one"),
        ("tokenizer.json", tokenizer({"a": 0}), b"[]", "it cannot be read as one"),
        ("tokenizer.json", tokenizer({"a": 0}), b"{}", "it cannot be read as one"),
        ("tokenizer.json", tokenizer({"a": 0}), b'{"model": 1}', "it cannot be read as one"),
        ("tokenizer.json", b"[" * 100_000, b"[" * 100_001, "it cannot be read as one"),
        ("tokenizer.json", tokenizer({"a": 0}), tokenizer({"a": 0, "b": 1}, merges=["a b"]), "texts are cut otherwise"),
        ("tokenizer.json", tokenizer([["a", -1.5]]), tokenizer([["a", -1.25]]), "0 stands for"),
        ("merges.txt", b"a b\n", b"a b\nc d\n", "texts are cut otherwise"),
    ],
)
def test_anything_else_is_another_vocabulary(name: str, old: bytes, new: bytes, what: str) -> None:
    found = vocabulary.compare(name, old, new)
    assert found.appended == 0
    assert found.what.startswith(what)


def test_added_tokens_of_a_tokenizer_belong_to_it() -> None:
    def with_tokens(*added: tuple[int, str]) -> bytes:
        whole = json.loads(tokenizer({"a": 0}))
        return json.dumps({**whole, "added_tokens": [{"id": i, "content": text} for i, text in added]}).encode()

    assert vocabulary.compare("tokenizer.json", with_tokens((1, "<s>")), with_tokens((1, "<s>"), (2, "</s>"))).appended
    assert not vocabulary.compare("tokenizer.json", with_tokens((1, "<s>")), with_tokens((1, "<t>"))).appended


_words = st.lists(st.text("abc", min_size=1, max_size=2), max_size=5)


@given(_words, _words)
def test_what_is_appended_leaves_every_number_its_token(old: list[str], new: list[str]) -> None:
    found = vocabulary.compare("vocab.json", json.dumps(old).encode(), json.dumps(new).encode())
    assert (found.appended > 0) == (len(new) > len(old) and new[: len(old)] == old)
