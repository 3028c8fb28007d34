"""YAML as data only: one strict reader, one plain writer. No tags, no aliases, no duplicate keys, YAML 1.2 scalars."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from gitmodel.errors import GitmodelError

MAX_BYTES = 4 << 20


class InvalidYaml(GitmodelError):
    """A YAML file that cannot be read, or says something it must not."""

    code = "invalid-yaml"


def load(data: bytes | str, where: str) -> Any:
    """Parses one YAML document. ``where`` names the file in errors. Raises InvalidYaml."""
    if len(data) > MAX_BYTES:
        raise InvalidYaml(f"{where} has {len(data)} bytes", hint=f"at most {MAX_BYTES} are read; split it")
    from gitmodel.bundle import yaml_dialect

    try:
        return yaml_dialect.load(data)
    except yaml_dialect.ERRORS as error:
        raise InvalidYaml(f"{where} is not valid YAML ({_one_line(error)})", hint="mend the file") from error


def lines(data: bytes | str, where: str) -> dict[tuple[str | int, ...], int]:
    """The line, counted from 1, of every key and every item of a list, by its path from the top. Raises InvalidYaml."""
    from gitmodel.bundle import yaml_dialect

    load(data, where)  # all that is refused there is refused here
    return yaml_dialect.lines(data)


def load_mapping(data: bytes | str, where: str) -> dict[str, Any]:
    """Like ``load`` for a file whose top level is a mapping; an empty file is an empty mapping."""
    value = load(data, where)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidYaml(f"{where} must be a mapping of names to values", hint="write it as 'key: value' lines")
    return value


def dump(value: Any) -> str:
    """Block style, keys in the order given, LF line ends: equal values give equal bytes."""
    from gitmodel.bundle import yaml_dialect

    return yaml_dialect.dump(value)


def check_keys(value: dict[str, Any], allowed: frozenset[str] | set[str], where: str) -> None:
    """Only known keys: a typo in a card must not pass silently. Raises InvalidYaml."""
    for key in value:
        if key not in allowed:
            raise InvalidYaml(f"{where} has an unknown key '{key}'", hint=f"known keys: {', '.join(sorted(allowed))}")


def finite(value: Any, where: str) -> float:
    """A number that is neither NaN nor infinite. Raises InvalidYaml."""
    with contextlib.suppress(OverflowError):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    raise InvalidYaml(f"{where} must be a finite number, not {value!r:.60}", hint="mend the file")


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)
