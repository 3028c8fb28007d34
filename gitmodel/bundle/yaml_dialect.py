"""What counts as YAML here: no tags, no aliases, no duplicate keys, scalars of YAML 1.2. ``yamlio`` reads and writes with it;
it stands apart because PyYAML takes longer to import than most commands have for it."""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_DEPTH = 50
MAX_DIGITS = 1000
_BASE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BASE_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_FLOAT_12 = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_INT_12 = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_BOOL_12 = re.compile(r"true|True|TRUE|false|False|FALSE")
#: What begins like a number some reader takes for one (DVC's ``0_9``, ``+_``): written in quotes, and never read so.
_LIKE_A_NUMBER = re.compile(r"[-+]?[.0-9_][0-9a-fA-FxXoO_.eE+-]*")


class _Loader(_BASE_LOADER):  # type: ignore[misc]  # the C loader has no stubs
    """Scalars as YAML 1.2 reads them (as DVC does): ``no`` is a string and ``1e-3`` a number."""


class _Dumper(_BASE_DUMPER):  # type: ignore[misc]  # the C dumper has no stubs
    """Quotes whatever YAML 1.1 or 1.2 could take for something other than a string."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the base class's signature
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:  # noqa: ARG002  # ditto
        # A mapping a line per key, so that a diff shows one change; short lists of scalars stay on their line.
        return super().represent_mapping(tag, mapping, flow_style=False)


_KEPT = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}
_Loader.yaml_implicit_resolvers = {
    first: kept
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [(tag, pattern) for tag, pattern in pairs if tag in _KEPT])
}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", _BOOL_12, "tTfF"),
    ("tag:yaml.org,2002:int", _INT_12, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT_12, "-+0123456789."),
):
    _full = re.compile(rf"^(?:{_pattern.pattern})$")
    _Loader.add_implicit_resolver(_tag, _full, list(_first))
    _Dumper.add_implicit_resolver(_tag, _full, list(_first))
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"^(?:{_LIKE_A_NUMBER.pattern})$"), list("-+0123456789._")
)


def _construct_mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise _refused("merge keys are not allowed", key_node)
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool):
            raise _refused("a key must be a plain scalar", key_node)
        if key in mapping:
            raise _refused(f"key '{key}' stands twice", key_node)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


def _construct_int(loader: Any, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > MAX_DIGITS:
        raise _refused(f"a number of more than {MAX_DIGITS} digits", node)
    for prefix, base in (("0o", 8), ("0x", 16)):
        if text.startswith(prefix):
            return int(text[2:], base)
    return int(text)


def _construct_float(loader: Any, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
    return float(text)


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def _refused(problem: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


#: What a text that is no YAML, or says what is not allowed here, is refused with.
ERRORS = (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError)


def load(data: bytes | str) -> Any:
    """Raises one of ``ERRORS``."""
    _check_events(data)
    return yaml.load(data, Loader=_Loader)  # noqa: S506  # a SafeLoader made stricter


def lines(data: bytes | str) -> dict[tuple[str | int, ...], int]:
    """See ``yamlio.lines``; of a text that ``load`` takes."""
    found: dict[tuple[str | int, ...], int] = {}

    def visit(node: yaml.Node | None, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            children = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(index, item, item) for index, item in enumerate(node.value)]
        else:
            return
        for name, marked, value in children:
            found[(*path, name)] = marked.start_mark.line + 1
            visit(value, (*path, name))

    visit(yaml.compose(data, Loader=_Loader), ())
    return found


def dump(value: Any) -> str:
    """See ``yamlio.dump``."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def _check_events(data: bytes | str) -> None:
    # The C composer resolves aliases before any hook of ours runs, and overflows its stack on deep nesting:
    # so the flat stream of events is looked at first.
    depth = 0
    for event in yaml.parse(data, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _refused("aliases are not allowed", event)
        if getattr(event, "tag", None) is not None:
            raise _refused("tags are not allowed", event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _refused(f"more than {MAX_DEPTH} levels", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
