"""gitmodel.storage.pointer: the bytes of a DVC pointer, reading one, and the .gitignore line beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitmodel.bundle.yamlio import InvalidYaml
from gitmodel.storage.cache import Cache
from gitmodel.storage.pointer import Pointer, ignore, listing_of

OID = "a7ecb847f29e188a58240c16de892d75.dir"


def test_a_pointer_is_written_byte_for_byte() -> None:
    text = f"outs:\n- md5: {OID}\n  size: 324877\n  nfiles: 4\n  hash: md5\n  path: weights\n"
    pointer = Pointer(OID, 324877, 4, "weights")
    assert pointer.to_yaml() == text
    assert Pointer.from_yaml(text, "weights.dvc") == pointer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "outs: 3\n",
        "outs: []\n",
        "outs:\n- 3\n",
        "outs:\n- md5: a\n  size: 1\n  nfiles: 1\n",
        "outs:\n- md5: a\n  size: many\n  nfiles: 1\n  path: weights\n",
        "outs:\n- md5: a\n  size: 1\n  path: weights\n",
        "outs: [\n",
    ],
)
def test_what_is_no_pointer_to_a_folder_is_refused(text: str) -> None:
    with pytest.raises(InvalidYaml, match=r"weights\.dvc"):
        Pointer.from_yaml(text, "weights.dvc")


def test_the_ignore_line_is_added_once_and_the_users_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / ".gitignore"
    ignore(tmp_path, "weights")
    assert path.read_text() == "/weights\n"
    path.write_text("*.tmp")
    ignore(tmp_path, "weights")
    ignore(tmp_path, "weights")
    assert path.read_text() == "*.tmp\n/weights\n"


def test_a_listing_has_the_bytes_the_cache_writes_in_whatever_order_files_come(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    entries = [cache.add(data).entry(name) for name, data in (("b", b"b"), ("a", b"aa"), ("c/d", b""))]
    oid, data = listing_of(reversed(entries))
    assert oid == cache.add_directory(entries)
    assert cache.path(oid).read_bytes() == data
    assert data.startswith(b'[{"md5": "') and data.index(b'"a"') < data.index(b'"b"') < data.index(b'"c/d"')
