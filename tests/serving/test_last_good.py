"""gitmodel.serving.last_good: what served last, kept over restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitmodel.serving.last_good import LastGood
from gitmodel.serving.policy import AspiredVersion

ONE = AspiredVersion("fraud", "v1.0.0", "c" * 40, 1, ("prod",))
TWO = AspiredVersion("fraud", "v1.1.0", "d" * 40, 2)
SPAM = AspiredVersion("spam", "v1.0.0", "e" * 40, 1)


def test_the_last_of_each_model_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "serving.json"
    kept = LastGood(path)
    for version in (ONE, SPAM, TWO):
        kept.put(version)
    for found in (kept, LastGood(path)):
        assert found.get("fraud") == TWO
        assert found.get("spam") == SPAM
        assert found.get("other") is None


def test_the_same_again_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    kept = LastGood(path)
    kept.put(ONE)
    path.unlink()
    kept.put(ONE)
    assert not path.exists()


def test_without_a_path_nothing_is_kept(tmp_path: Path) -> None:
    kept = LastGood(None)
    kept.put(ONE)
    assert kept.get("fraud") is None


@pytest.mark.parametrize("damage", ["", "{", "[1]", "[[]]", '[{"model": "fraud"}]', '{"a": 1}', "null", "7", "\x00"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "serving.json"
    path.write_text(damage)
    kept = LastGood(path)
    assert kept.get("fraud") is None
    kept.put(ONE)
    assert LastGood(path).get("fraud") == ONE


def test_a_file_that_is_no_text_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    path.write_bytes(b"\xff\xfe")
    assert LastGood(path).get("fraud") is None


def test_where_nothing_can_be_written_serving_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = LastGood(tmp_path / "file" / "serving.json")
    kept.put(ONE)
    assert kept.get("fraud") == ONE
