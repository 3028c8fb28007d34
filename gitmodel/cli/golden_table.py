"""The golden cases of a model as rows of a table, and as a document for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gitmodel.cli.console import human

if TYPE_CHECKING:
    from gitmodel.workflows.golden import Group

HEADER = ["group", "cases", "rows", "size", "slice", "accepted", "holds"]


def cells(group: Group, checked: bool) -> list[str]:
    part, rows = group.slice, group.rows
    limits = {"agreement": part.agreement, "distance": part.distance} if part else {}
    said = ", ".join(f"{key} {value:g}" for key, value in limits.items() if value is not None)
    told = f"{part.name} ({said})" if part and said else part.name if part else "-"
    held = f"{sum(row.wrong == '' for row in rows)}/{len(rows)}" if checked else "-"
    accepted = sum(row.accepted is not None for row in rows)
    size, in_all = sum(row.size for row in rows), sum(row.rows for row in rows)
    return [group.name, str(len(rows)), str(in_all), human(size), told, str(accepted or "-"), held]


def to_dict(group: Group) -> dict[str, Any]:
    from msgspec.structs import asdict

    part = group.slice
    cases = [
        {
            "name": row.name, "rows": row.rows, "bytes": row.size, "holds": None if row.wrong is None else not row.wrong,
            "wrong": row.wrong or None, "accepted": _without_cases(asdict(row.accepted)) if row.accepted else None,
        }
        for row in group.rows
    ]  # fmt: skip
    return {"group": group.name, "slice": asdict(part) if part else None, "cases": cases}


def _without_cases(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "cases"}
