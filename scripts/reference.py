"""Writes the pages of docs/reference/ that the code itself knows best: commands and options, rules, error codes, modules.

scripts/reference.py            writes the pages
scripts/reference.py --check    writes nothing; exit code 1 when a page is not what the code says
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gitmodel.errors import GitmodelError

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
_NOTE = "\n<!-- Written by scripts/reference.py from the code: change the code, then run scripts/docs. -->\n"
_WHO = {
    "C": "callers, who feed inputs",
    "O": "consumers, who read outputs",
    "R": "runtimes and loaders, which open the file",
    "F": "rollback: new callers on the old version",
    "B": "behaviour: the same input, another answer",
    "H": "the repository itself",
}
#: Sections of the rules page by how a rule's id begins; what fits none goes into the last.
_SECTIONS = (
    ("Inputs", ("input-",)),
    ("Outputs", ("output-",)),
    ("Values of both sides", ("value-", "string-")),
    ("Named signatures", ("signature-added", "signature-removed", "default-")),
    ("Class labels", ("label",)),
    ("Assets and vocabularies", ("asset-", "vocabulary-")),
    ("What the card and the parameters say", ("preprocessing-", "postprocessing-", "state-", "inference-", "hyper")),
    ("Behaviour", ("golden-", "goldens-", "nan-", "inf-", "new-error-", "agreement-", "nondeterministic-", "batch-")),
    ("Checkpoints (weights without a graph)", ("tensor-", "graph-")),
    (
        "Runtime",
        ("model-load-", "ir-", "opset-", "ml-opset-", "custom-", "op-", "onnx-", "external-", "unsafe-", "target-"),
    ),
    ("Budgets", ("latency-", "memory-", "load-time-", "size-")),
    ("The repository", ("",)),
)


# Commands -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """An argument (``flags`` empty) or an option of a command, as ``--help`` has it."""

    flags: tuple[str, ...]
    value: str
    help: str
    default: str
    required: bool
    repeated: bool

    @property
    def shown(self) -> str:
        flags = ", ".join(self.flags)
        return f"{flags} {self.value}".strip()


@dataclass(frozen=True)
class Command:
    """``path`` is how it is typed: ``hooks install``; empty for gitmodel itself."""

    path: str
    help: str
    parameters: tuple[Parameter, ...]


def commands() -> list[Command]:
    """Every command a user may type, in the order of ``--help``; hidden ones are left out."""
    import typer

    from gitmodel.cli import app

    return list(_commands(typer.main.get_command(app), ""))


def _commands(command: Any, path: str) -> Iterator[Command]:
    parameters = tuple(_parameter(p) for p in command.params if not getattr(p, "hidden", False))
    yield Command(path, inspect.cleandoc(command.help or ""), parameters)
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _commands(child, f"{path} {name}".strip())


def _parameter(parameter: Any) -> Parameter:
    is_option = parameter.opts[0].startswith("-")
    flags = tuple(sorted((*parameter.opts, *parameter.secondary_opts), key=len)) if is_option else ()
    plain = is_option and (getattr(parameter, "is_flag", False) or getattr(parameter, "count", False))
    value = "" if plain else _value(parameter)
    default = parameter.default
    said = "" if plain or default is None or callable(default) or default in ("", [], ()) else str(_plain(default))
    repeated = bool(getattr(parameter, "multiple", False) or parameter.nargs == -1)
    return Parameter(flags, value, (parameter.help or "").strip(), said, bool(parameter.required), repeated)


def _value(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar).strip("[]").removesuffix("...")
    if choices := getattr(parameter.type, "choices", ()):
        return "|".join(str(_plain(choice)) for choice in choices)
    words = {"integer": "N", "float": "NUMBER"}
    return words.get(parameter.type.name, "TEXT" if parameter.opts[0].startswith("-") else str(parameter.name).upper())


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def commands_page() -> str:
    found = commands()
    root = next(command for command in found if not command.path)
    out = [
        "# Commands", _NOTE, root.help, "",
        "Results go to stdout, messages and progress to stderr. Colour and progress show on a terminal only; `NO_COLOR`"
        " turns colour off. What the exit codes mean, and every error's code, is in [errors](errors.md). `REF` is a"
        " [reference](tags.md#references): a model, a version, a stage, a revision or a file.", "",
        "| command | does |", "|---|---|",
    ]  # fmt: skip
    for command in found:
        if command.path:
            out.append(f"| [`{command.path}`](#{_anchor(command.path)}) | {_first_paragraph(command.help)} |")
    out += ["", "## gitmodel", "", *_options(root)]
    for command in found:
        if command.path:
            out += ["", f"## {command.path}", "", *_command(command)]
    return "\n".join(out) + "\n"


def _command(command: Command) -> list[str]:
    arguments = [p for p in command.parameters if not p.flags]
    words = [f"gitmodel {command.path}"]
    words += [
        f"{'' if p.required else '['}{p.value}{'...' if p.repeated else ''}{'' if p.required else ']'}"
        for p in arguments
    ]
    usage = " ".join([*words, "[OPTIONS]"])
    text, example = _split_example(command.help)
    out = [text, "", f"    {usage}", ""]
    if example:
        out += ["Example:", "", f"    {example}", ""]
    if arguments:
        out += ["| argument | |", "|---|---|"]
        out += [f"| `{p.value.replace('|', chr(92) + '|')}` | {_described(p)} |" for p in arguments]
        out.append("")
    return out + _options(command)


def _options(command: Command) -> list[str]:
    options = [p for p in command.parameters if p.flags]
    rows = [f"| `{p.shown.replace('|', chr(92) + '|')}` | {_described(p)} |" for p in options]
    return ["| option | |", "|---|---|", *rows, "| `-h, --help` | Show the command's help. |"]


def _described(parameter: Parameter) -> str:
    text = _escaped(parameter.help)
    return f"{text} Default: `{parameter.default}`." if parameter.default else text


def _split_example(text: str) -> tuple[str, str]:
    before, mark, example = text.partition("Example:")
    return " ".join(before.split()) if mark else " ".join(text.split()), " ".join(example.split())


def _first_paragraph(text: str) -> str:
    paragraph = " ".join(text.split("\n\n", 1)[0].split())
    return _escaped(paragraph)


# Rules ----------------------------------------------------------------------------------------------------------------


def rules_page() -> str:
    from gitmodel.compat import rules

    found = [rules.load(name) for name in rules.names()]
    out = [
        "# Rules of check-compat", _NOTE,
        f"{len(found)} rules, each one file in `gitmodel/compat/rules/`. A rule says what a fact about OLD and NEW"
        " means, for whom, and which version bump it owes. How they become a verdict: [explanation](../explanation.md"
        "#how-a-verdict-is-reached).", "",
        "Bumps differ by client. *positional* clients address tensors by their order, *named* ones by name (the"
        " default), *json* ones send JSON that the server converts. One word stands for all three.", "",
        "| who | breaks |", "|---|---|", *(f"| {letter} | {words} |" for letter, words in _WHO.items()), "",
        "An *error* makes a change incompatible unless a large enough bump pays for it; rules marked *never paid for*"
        " stop a release whatever its number. A *warning* wants a look, *info* is for the record.",
    ]  # fmt: skip
    left = list(found)
    for title, prefixes in _SECTIONS:
        here = [rule for rule in left if rule.id.startswith(prefixes)]
        left = [rule for rule in left if rule not in here]
        if here:
            out += ["", f"## {title}"]
        for rule in here:
            out += _rule(rule)
    return "\n".join(out) + "\n"


def _rule(rule: Any) -> list[str]:
    paid = "" if rule.curable else ", never paid for"
    out = ["", f"### {rule.id}", "", f"{rule.severity}{paid}; bump: {_bump(rule.bump)}; who: {rule.who}", ""]
    out += [f"> {_braces(rule.message)}", ""]
    for variant in rule.variants:
        when = ", ".join(f"{key} is {str(value).lower()}" for key, value in variant["when"].items())
        what = [f"bump {_bump(variant['bump'])}"] if "bump" in variant else []
        what += [str(variant["severity"])] if "severity" in variant else []
        what += [f"says “{_braces(variant['message'])}”"] if "message" in variant else []
        out += [f"When {when}: {'; '.join(what)}.", ""]
    return [*out, f"Why: {_escaped(rule.why)} Mend: {_braces(rule.fix)}"]


def _bump(bump: Any) -> str:
    words = {profile: str(value) for profile, value in bump.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{profile} {word}" for profile, word in words.items())


def _braces(text: str) -> str:
    """``{name:.3g}`` as ``NAME``: what a reader sees in that place."""
    return _escaped(re.sub(r"\{(\w+)[^}]*\}", lambda found: found[1].upper(), text))


# Errors ---------------------------------------------------------------------------------------------------------------


def errors() -> list[type[GitmodelError]]:
    """Every error class a user can meet, by code."""
    import gitmodel
    from gitmodel.errors import GitmodelError

    for module in pkgutil.walk_packages(gitmodel.__path__, "gitmodel."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[GitmodelError]] = []
    todo: list[type[GitmodelError]] = [GitmodelError]
    while todo:
        for child in todo.pop().__subclasses__():
            todo.append(child)
            if "code" in vars(child):
                found.append(child)
    return sorted(found, key=lambda error: (error.code, error.__name__))


def errors_page() -> str:
    from gitmodel.errors import ExitCode

    out = [
        "# Errors and exit codes", _NOTE,
        "A mistake is one line on stderr, `error[CODE]: the fact: the next step`. Scripts may rely on the code and on"
        " the exit code, not on the wording. `-vv` shows where it came from.", "",
        "| exit code | means |", "|---|---|",
        f"| {int(ExitCode.OK)} | done; compatible |",
        f"| {int(ExitCode.INCOMPATIBLE)} | incompatible, or a check failed |",
        f"| {int(ExitCode.USAGE)} | wrong usage, or a mistake you can mend |",
        f"| {int(ExitCode.INCOMPLETE)} | could not judge, could not complete |",
        "| 130 | interrupted with Ctrl-C |", "",
        "An option or argument that does not exist, or lacks its value, is answered with the usage and exit code 2.", "",
        "| code | exit code | meaning | class |", "|---|---|---|---|",
    ]  # fmt: skip
    for error in errors():
        meaning = _code_marks(_first_paragraph(inspect.getdoc(error) or ""))
        name = f"`{error.__module__}.{error.__name__}`"
        out.append(f"| `{error.code}` | {int(error.exit_code)} | {meaning} | {name} |")
    out += [
        "| `internal` | 3 | A bug in gitmodel; run again with `-vv` and report what it says. | |", "",
        "`gate-refused` exits with 3 instead when the change could not be judged. A server's answers have codes of"
        " HTTP: see [REST](rest.md#errors).",
    ]  # fmt: skip
    return "\n".join(out) + "\n"


def _code_marks(text: str) -> str:
    return text.replace("``", "`")


# Modules --------------------------------------------------------------------------------------------------------------


def modules_page() -> str:
    package = FOLDER.parent.parent / "gitmodel"
    rooms: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).parts
        room = f"{parts[0]}/" if len(parts) > 1 else "gitmodel/"
        purpose = ast.get_docstring(ast.parse(path.read_text())) or ""
        rooms.setdefault(room, []).append(("/".join(parts), _code_marks(_first_paragraph(purpose))))
    out = [
        "# Modules", _NOTE,
        "What each module is for, in its own words. How they stand to each other: [architecture](../architecture.md).",
    ]  # fmt: skip
    for room in sorted(rooms, key=lambda name: (name != "gitmodel/", name)):
        out += ["", f"## {room}", "", "| module | is for |", "|---|---|"]
        out += [f"| `{name}` | {purpose} |" for name, purpose in rooms[room]]
    return "\n".join(out) + "\n"


# ----------------------------------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _anchor(title: str) -> str:
    return re.sub(r"[^\w-]+", "-", title.lower())


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "rules.md": rules_page,
    "errors.md": errors_page,
    "modules.md": modules_page,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is out of date")
    options = parser.parse_args()
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote docs/reference/{name}")
    if stale and options.check:
        raise SystemExit(f"out of date: {', '.join(stale)}; run scripts/docs")


if __name__ == "__main__":
    main()
