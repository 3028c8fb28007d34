"""The zip file around an npz: its members as bytes, mapped where they are stored, inflated to disk where they are not."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from msgspec import Struct

from gitmodel.formats.mapping import let_go
from gitmodel.formats.source import UnsafePart, blocks, first_line, rooms

#: What unpacks to more than this, and to more than this many times its size, is no model.
FREE_BYTES = 1 << 30
MAX_RATIO = 200
_LOCAL_HEADER, _LOCAL_MARK = 30, b"PK\x03\x04"
_ENCRYPTED = 1
_BLOCK = 4 << 20


class _Member(Struct, frozen=True):
    """``packed`` are the member's bytes as they stand in the file, from ``begin`` (its header) to ``end``."""

    name: str
    packed: memoryview
    begin: int
    end: int
    size: int
    crc: int
    deflated: bool


def members(path: Path, data: memoryview) -> dict[str, memoryview]:
    """Every member's bytes by name, in the file's order, each checked by its checksum. ``data`` is the mapped file.

    Raises ValueError for what is no zip file of plain members, and for one that unpacks to far more than it is.
    """
    found = [_member(info, data) for info in _directory(path)]
    if len({member.name for member in found}) != len(found):
        raise ValueError("a member stands in it twice")
    reached = 0
    for member in sorted(found, key=lambda member: member.begin):
        if member.begin < reached:
            raise ValueError(f"the member {member.name[:60]!r} overlaps another one")
        reached = member.end
    total = sum(member.size for member in found)
    if total > max(FREE_BYTES, MAX_RATIO * len(data)):
        raise UnsafePart(f"it has {len(data)} bytes and would unpack to {total}")
    space = rooms([member.size if member.deflated else 0 for member in found])
    return {member.name: _body(member, room) for member, room in zip(found, space, strict=True)}


def _directory(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception as error:  # zipfile raises struct's, its own and Python's errors; they share no other base
        raise ValueError(first_line(error)) from None


def _member(info: zipfile.ZipInfo, data: memoryview) -> _Member:
    name, begin = info.orig_filename, info.header_offset
    here = f"the member {name[:60]!r}"
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{here} is encrypted or packed in a way numpy does not know")
    local = data[begin : begin + _LOCAL_HEADER].tobytes() if begin >= 0 else b""
    if len(local) < _LOCAL_HEADER or not local.startswith(_LOCAL_MARK):
        raise ValueError(f"{here} is not where the directory says")
    # The name and the extra fields may be longer here than in the directory (APPNOTE 4.3.7).
    start = begin + _LOCAL_HEADER + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    end = start + info.compress_size
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if end > len(data) or (not deflated and info.compress_size != info.file_size):
        raise ValueError(f"{here} is cut short")
    return _Member(name, data[start:end], begin, end, info.file_size, info.CRC, deflated)


def _body(member: _Member, room: memoryview) -> memoryview:
    if member.deflated:
        _inflate(member, room)
    body = room.toreadonly() if member.deflated else member.packed
    crc = 0
    for block in blocks(body):
        crc = zlib.crc32(block, crc)
        let_go(block)
    if crc != member.crc:
        raise ValueError(f"the member {member.name[:60]!r} is damaged: its checksum differs")
    return body


def _inflate(member: _Member, room: memoryview) -> None:
    """Unpacks the member into ``room``, which is as large as the directory says it is."""
    engine, filled = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        for block in blocks(member.packed, _BLOCK):
            piece: bytes | memoryview = block
            while not engine.eof:
                # One byte more than there is room for shows that the directory lies.
                most = min(_BLOCK, len(room) - filled + 1)
                out = engine.decompress(piece, most)
                room[filled : filled + len(out)] = out
                let_go(room[filled : filled + len(out)])
                filled, piece = filled + len(out), engine.unconsumed_tail
                if not piece and len(out) < most:
                    break
            let_go(block)
    except (zlib.error, ValueError):
        raise ValueError(f"the member {member.name[:60]!r} is damaged") from None
    if filled != len(room) or not engine.eof:
        raise ValueError(f"the member {member.name[:60]!r} is cut short")
