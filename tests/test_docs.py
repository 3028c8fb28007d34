"""What a reader is told is so: commands exist and print what the pages show, links lead somewhere, nothing is left out."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from gitmodel.bundle import card
from tests import support
from tests.test_layers import LAYERS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
#: Pages a person wrote, as opposed to those of scripts/.
WRITTEN = [page for page in PAGES if "<!-- Written by" not in page.read_text()]
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(.+?)\1")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)


def _script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


transcripts, reference = _script("transcripts"), _script("reference")
COMMANDS = {command.path: command for command in reference.commands()}
RUN = [page for page in PAGES if any(block.language == "console" for block in transcripts.blocks(page.read_text()))]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def typed(page: Path) -> Iterator[str]:
    """Everything on a page that a reader could type: lines of code blocks, code in the text, what messages quote."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        for line in match[3].replace("\\\n", " ").splitlines():
            if match[2] != "console" or line.startswith(("$ ", "> ")):
                yield line.removeprefix("$ ").strip()
    for line in prose(page).splitlines():
        if line.startswith("    "):
            yield line.strip()
    for match in _SPAN.finditer(prose(page)):
        yield match[2].strip()
        yield from re.findall(r"'(gitmodel [^']+)'", match[2])


def calls(text: str) -> Iterator[list[str]]:
    """The words of each call of gitmodel in something typed."""
    for part in re.split(r"&&|\|\||;|\s\|\s", text):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # half a quotation: a line of a longer command
            continue
        if words and words[0].rpartition("/")[2] == "gitmodel" and len(words) > 1:
            yield words[1:]


def wrong(words: list[str]) -> str:
    """What is wrong with a call; empty when the command and all its options exist."""
    path, rest = "", list(words)
    while rest and f"{path} {rest[0]}".strip() in COMMANDS:
        path = f"{path} {rest.pop(0)}".strip()
    if not path and not rest[0].startswith("-"):
        return f"there is no command '{rest[0]}'"
    flags = {flag for parameter in COMMANDS[path].parameters for flag in parameter.flags} | {"-h", "--help"}
    for word in rest:
        if word.startswith("-") and len(word) > 1 and word.partition("=")[0] not in flags:
            return f"'{path}' has no option {word}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_on_a_page_exists_with_its_options(page: Path) -> None:
    found = [words for text in typed(page) for words in calls(text)]
    assert [f"gitmodel {' '.join(words)}: {wrong(words)}" for words in found if wrong(words)] == []


def test_a_wrong_command_and_a_wrong_option_would_be_seen() -> None:
    assert wrong(["release", "fraud", "--push", "production"]) == ""
    assert wrong(["relase", "fraud"]) == "there is no command 'relase'"
    assert wrong(["hooks", "install", "--sever"]) == "'hooks install' has no option --sever"
    assert list(calls("cd x && gitmodel log fraud | head")) == [["log", "fraud"]]


@pytest.mark.parametrize("path", [path for path in COMMANDS if path])
def test_every_command_and_option_is_documented(path: str) -> None:
    text = (DOCS / "reference" / "commands.md").read_text()
    section = re.search(rf"^## {re.escape(path)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    for parameter in COMMANDS[path].parameters:
        for flag in parameter.flags:
            assert flag in section[1]
        assert parameter.help, f"{path} {parameter.shown} has no help"


def test_every_command_is_told_of_where_a_reader_would_meet_it() -> None:
    met = {" ".join(words) for page in WRITTEN for text in typed(page) for words in calls(text)}
    unmet = [path for path in COMMANDS if path and not any(f"{text} ".startswith(f"{path} ") for text in met)]
    assert unmet == []


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_the_reference_is_what_the_code_says(name: str) -> None:
    assert (DOCS / "reference" / name).read_text() == reference.PAGES[name](), "run scripts/docs"


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_shows_what_its_commands_print(page: Path) -> None:
    if "curl" in page.read_text() and shutil.which("curl") is None:
        pytest.skip("the page asks the server with curl")
    assert "\n".join(transcripts.run_page(page)) == "", f"run scripts/transcripts.py --write {page.name}; read the diff"


def test_what_a_page_shows_is_held_against_what_came_out() -> None:
    shown = transcripts.Shown("x", ["saved in 0.12 s", "...", "sha256:0123456789ab"], [])
    shown.actual = ["saved in 3.4 s", "more", "and more", "sha256:ba9876543210"]
    assert shown.agrees
    shown.actual = ["saved in 3.4 s", "sha256:ba9876543210", "and more"]
    assert not shown.agrees


def test_error_codes_on_the_pages_exist() -> None:
    known = {error.code for error in reference.errors()}
    found = {code for page in PAGES for code in re.findall(r"error\[([a-z-]+)\]", page.read_text())}
    assert len(found) > 10
    assert found - known == set()


def test_the_numbers_on_the_pages_are_those_of_the_code() -> None:
    from gitmodel import hooks
    from gitmodel.bundle import card

    golden = " ".join((DOCS / "howto" / "golden.md").read_text().split())
    assert f"`agreement` (default {card.DEFAULT_AGREEMENT})" in golden
    assert f"`distance` of their own size (default {card.DEFAULT_DISTANCE})" in golden
    for dtype, (rtol, atol) in card.DEFAULT_TOLERANCES.items():
        told = re.search(rf"{dtype} (\S+) and ([\d.e-]+\d)", golden)
        assert told is not None
        assert (float(told[1]), float(told[2])) == (rtol, atol)
    assert f"Up to {hooks.PUSH_WAIT:.0f} seconds" in (DOCS / "howto" / "live.md").read_text()
    assert f"up to {hooks.LOCAL_WAIT:.0f} seconds" in (DOCS / "howto" / "tags-and-hooks.md").read_text()


def slug(heading: str) -> str:
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower())


def test_every_key_of_a_card_is_on_the_page_of_files() -> None:
    page = (DOCS / "reference" / "files.md").read_text()
    section = page.partition("## model.yaml")[2].partition("\n## ")[0]
    told = {
        name
        for row in section.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([a-z_]+)", row.split("|")[1])
    }
    assert told == card.KEYS


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_inside_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        headings = (
            {slug(h) for h in _HEADING.findall(prose(path))} if path.suffix == ".md" and path.is_file() else set()
        )
        if not path.is_file() or (anchor and anchor not in headings):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_page_names_a_folder_of_this_machine(page: Path) -> None:
    assert str(ROOT) not in page.read_text()
    assert "/root/" not in page.read_text()


def test_the_two_commands_of_the_readme_exist() -> None:
    named = set(re.findall(r"`(scripts/\w+)`", (ROOT / "README.md").read_text()))
    assert named >= {"scripts/demo", "scripts/test"}
    for name in named:
        assert os.access(ROOT / name, os.X_OK), name
        assert (ROOT / name).read_bytes().startswith(b"#!/bin/sh\n"), name


def test_the_picture_is_there_and_loads_nothing() -> None:
    picture = DOCS / "images" / "demo.svg"
    assert "docs/images/demo.svg" in (ROOT / "README.md").read_text()
    text = picture.read_text()
    assert len(text) < 400_000
    assert "digits" in text
    assert re.findall(r"(?:href|src|url)[=(]\s*[\"']?https?:", text) == []


def test_every_dependency_is_explained_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.split(r"[\[<>=~ ]", requirement)[0] for requirement in wanted} - {"gitmodel"}
    rows = re.findall(r"^\| (`[^|]+) \|", (DOCS / "dependencies.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == names


def test_the_architecture_page_has_the_rooms_in_their_order() -> None:
    table = (DOCS / "architecture.md").read_text().partition("## Rooms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    told = [set(re.findall(r"`([\w]+)/?`", row)) for row in rows]
    layers = [layer for layer in LAYERS if not layer & {"__init__", "__main__"}]
    order = [next(i for i, layer in enumerate(layers) if rooms <= layer) for rooms in told]
    assert order == sorted(order)
    assert set().union(*told) == set().union(*layers)


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = sorted((tmp_path / "site").rglob("*.html"))
    assert len(built) >= len(list(DOCS.rglob("*.md")))
    for page in built:
        assert re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"https?:[^\"]*", page.read_text()) == []


# The workflow for pull requests ---------------------------------------------------------------------------------------

WORKFLOW = ROOT / "templates" / "check-compat.yml"


def test_the_page_on_ci_shows_the_workflow_as_it_is() -> None:
    assert f"```yaml\n{WORKFLOW.read_text()}```" in (DOCS / "howto" / "ci.md").read_text()


@pytest.fixture
def judged(repo: Path, tmp_path: Path) -> Callable[[], tuple[int, str]]:
    """Runs the workflow's own step as CI would, in a clone of the repository at its current branch: (exit code, summary)."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["check-compat"]["steps"]
    step: dict[str, Any] = next(step for step in steps if step.get("name") == "Judge")

    def run() -> tuple[int, str]:
        clone, temporary = tmp_path / "clone", tmp_path / "runner"
        support.git(tmp_path, "clone", "-q", str(repo), str(clone))
        temporary.mkdir()
        environment = {
            **os.environ, "PATH": f"{support.BIN}{os.pathsep}{os.environ['PATH']}", "GITHUB_BASE_REF": "main",
            "RUNNER_TEMP": str(temporary), "GITHUB_STEP_SUMMARY": str(temporary / "summary"),
        }  # fmt: skip
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, (temporary / "summary").read_text()

    return run


@pytest.mark.parametrize(("scale", "code", "word"), [(1.0001, 0, "COMPATIBLE"), (-1.0, 1, "INCOMPATIBLE")])
def test_the_workflow_judges_a_branch_against_its_base(
    repo: Path, tmp_path: Path, save_model: Callable[..., object], judged: Callable[[], tuple[int, str]],
    scale: float, code: int, word: str,
) -> None:  # fmt: skip
    from gitmodel.workflows import transfer

    cases = support.cases_npz(tmp_path / "cases.npz")
    save_model(golden=cases, message="base")
    support.git(repo, "switch", "-q", "-c", "branch")
    save_model(scale=scale, golden=cases, message="change")
    transfer.push(["fraud", "fraud@main"], repo=repo)
    status, summary = judged()
    assert (status, summary.split()[2]) == (code, f"{word}:")
    written = sorted(path.name for path in (tmp_path / "runner" / "report").iterdir())
    assert written == ["comment.md", "junit.xml", "report.html", "report.sarif"]


def test_only_the_job_that_opens_no_model_may_write() -> None:
    from gitmodel.compat.reports import markdown

    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in workflow["jobs"].items() if "permissions" in job] == ["comment"]
    comment = workflow["jobs"]["comment"]
    assert comment["permissions"] == {"pull-requests": "write"}
    script = comment["steps"][-1]["run"]
    assert markdown.MARKER in script
    assert not [step for step in comment["steps"] if "checkout" in step.get("uses", "") or "pip" in step.get("run", "")]


def test_the_workflow_never_passes_what_could_not_be_judged(
    repo: Path, tmp_path: Path, save_model: Callable[..., object], judged: Callable[[], tuple[int, str]]
) -> None:
    save_model(message="base")
    support.git(repo, "switch", "-q", "-c", "branch")
    save_model(scale=2.0, message="change")
    assert judged()[0] == 3
