"""The commands over golden cases as a person types them; a review at a real terminal."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from gitmodel.cli.reviewing import shown
from gitmodel.compat.closeness import Closeness
from gitmodel.workflows import save
from gitmodel.workflows.golden_review import Failing
from tests import support
from tests.cli.command import Command
from tests.cli.terminal import Terminal, terminal

FOLDER = Path("models/fraud/golden/cases")
PROMPT = r"\((\d+) left, \? for help\): "


@pytest.fixture
def gitmodel(repo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(repo, monkeypatch, capfd)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Four rows."""
    return support.cases_npz(tmp_path / "cases.npz", rows=4)


@pytest.fixture
def drifted(repo: Path, save_model: Callable[..., object], cases: Path) -> Path:
    """``fraud`` with 4 golden cases, all of which the weights saved after them fail."""
    save_model(golden=cases)
    save_model(scale=1.01)
    return repo


def failing(repo: Path) -> int:
    done = support.gitmodel("golden", "list", "fraud", "--check", "--format", "json", cwd=repo)
    return sum(not case["holds"] for group in json.loads(done.stdout)["groups"] for case in group["cases"])


# add, record, list, accept


def test_adding_tells_what_was_added_and_what_is_next(
    gitmodel: Command, save_model: Callable[..., object], cases: Path
) -> None:
    save_model()
    done = gitmodel("golden", "add", "fraud", cases)
    assert (done.code, done.out) == (0, "")
    first, second, third = done.err.splitlines()
    assert first == "added 4 golden cases to cases"
    assert re.fullmatch(r"fraud has 4 golden cases, \d+ B; 16 or more are good", second)
    assert third == "next: git add models/fraud && git commit"
    again = gitmodel("golden", "add", "fraud", cases).err.splitlines()
    assert (again[0], len(again)) == ("added 0 golden cases to cases, 4 known already", 2)
    many = gitmodel("golden", "add", "fraud", "--auto", "12").err
    assert "added 12 golden cases to auto\nfraud has 16 golden cases" in many
    assert "or more are good" not in many
    assert (gitmodel("golden", "add", "fraud", "--auto", "12", "-q").err) == ""


def test_a_slice_has_its_thresholds(
    gitmodel: Command, save_model: Callable[..., object], cases: Path, repo: Path
) -> None:
    save_model()
    limits = ["--slice", "country=DE", "--agreement", "0.95", "--distance", "0.1"]
    assert gitmodel("golden", "add", "fraud", cases, *limits)
    assert (repo / "models/fraud/golden/country=DE/slice.yaml").read_text() == (
        "slice: country=DE\nagreement: 0.95\ndistance: 0.1\n"
    )
    done = gitmodel("golden", "list", "fraud")
    assert "country=DE (agreement 0.95, distance 0.1)" in done.out


def test_given_outputs_that_the_model_does_not_give_are_a_warning(
    gitmodel: Command, save_model: Callable[..., object], tmp_path: Path
) -> None:
    save_model()
    np.savez(tmp_path / "x.npz", x=np.ones((1, 4), "float32"), scores=np.full((1, 3), 7, "float32"))
    done = gitmodel("golden", "add", "fraud", tmp_path / "x.npz")
    assert "warning: the model does not give the outputs of 1 of them (x/0)" in done.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["add", "fraud"], "give one of NPZ, --from-traffic and --auto"),
        (["add", "fraud", "x.npz", "--auto", "3"], "give one of NPZ, --from-traffic and --auto"),
        (["add", "fraud", "--auto", "257"], "--auto"),
        (["add", "fraud", "x.npz", "--agreement", "0.5"], "thresholds belong to a slice"),
        (["add", "fraud", "x.npz", "--slice", "country"], "KEY=VALUE"),
        (["add", "fraud", "x.npz", "--slice", "a=b", "--agreement", "1.5"], "--agreement"),
        (["add", "fraud", "nothing.npz"], "there is no file"),
        (["add", "fraud", "--from-traffic", "nowhere"], "has no recorded requests of 'fraud'"),
        (["add", "nobody", "--auto", "3"], "there is no model 'nobody'"),
        (["accept", "fraud", "--reason", "r"], "name cases with --case, or give --all"),
        (["accept", "fraud", "--reason", "r", "--all", "--case", "cases/0"], "name cases with --case, or give --all"),
        (["accept", "fraud", "--all"], "say why"),
        (["accept", "fraud", "--all", "--reason", " "], "say why"),
        (["accept", "fraud", "--case", "cases/9", "--reason", "r"], "fraud has no golden case 'cases/9'"),
        (["record", "fraud", "--by", "fraud@v9.0.0"], "fraud has no version"),
        (["list", "nobody"], "there is no model 'nobody'"),
    ],
)
def test_a_mistake_is_exit_2_and_says_so(gitmodel: Command, drifted: Path, args: list[str], says: str) -> None:
    done = gitmodel("golden", *args)
    assert (done.code, done.out) == (2, "")
    assert says in re.sub(r"[\s│]+", " ", done.err)
    assert "Traceback" not in done.err
    assert support.git(drifted, "status", "--porcelain") == ""


def test_the_list_shows_what_holds_and_fails_when_one_does_not(gitmodel: Command, drifted: Path) -> None:
    assert gitmodel("golden", "list", "fraud").code == 0
    done = gitmodel("golden", "list", "fraud", "--check")
    assert (done.code, done.err) == (1, "")
    header, row, *cases = done.out.splitlines()
    assert header.split() == ["GROUP", "CASES", "ROWS", "SIZE", "SLICE", "ACCEPTED", "HOLDS"]
    assert row.split()[:3] == ["cases", "4", "4"]
    assert row.split()[-1] == "0/4"
    assert [line.split(":")[0].strip() for line in cases] == [f"cases/{i}" for i in range(4)]
    assert gitmodel("golden", "list", "fraud@HEAD~1", "--check").code == 0


def test_the_list_for_programs_has_every_case(gitmodel: Command, drifted: Path) -> None:
    gitmodel("golden", "accept", "fraud", "--case", "cases/1", "--reason", "June")
    done = gitmodel("golden", "list", "fraud", "--check", "--format", "json")
    value = json.loads(done.out)
    assert (done.code, value["schema"], value["checked"]) == (1, 1, True)
    (group,) = value["groups"]
    assert (group["group"], group["slice"]) == ("cases", None)
    assert [case["holds"] for case in group["cases"]] == [False, True, False, False]
    assert group["cases"][1]["accepted"]["reason"] == "June"
    assert set(group["cases"][1]["accepted"]) == {"reason", "by", "weights"}
    unchecked = json.loads(gitmodel("golden", "list", "fraud", "--format", "json").out)
    assert {case["holds"] for case in unchecked["groups"][0]["cases"]} == {None}


def test_a_model_without_cases_says_how_to_get_some(gitmodel: Command, save_model: Callable[..., object]) -> None:
    save_model()
    done = gitmodel("golden", "list", "fraud", "--check")
    assert (done.code, done.out) == (0, "")
    assert done.err == "fraud has no golden cases; 'gitmodel golden add' makes some\n"


def test_accepting_tells_how_many_and_leaves_the_rest(gitmodel: Command, drifted: Path) -> None:
    done = gitmodel("golden", "accept", "fraud", "--case", "cases/1", "--case", "cases/2", "--reason", "June")
    assert (done.code, done.out) == (0, "")
    first, worst, last = done.err.splitlines()
    assert (first, last) == ("accepted 2 golden cases of fraud", "next: git add models/fraud && git commit")
    assert re.fullmatch(
        r"  scores: max abs 0\.\d+, max rel 0\.\d+ \(worst in cases/[12]\), top-1 changed in 0 of 2 rows", worst
    )
    done = gitmodel("golden", "accept", "fraud", "--all", "--reason", "June")
    assert done.err.splitlines()[0] == "accepted 2 golden cases of fraud; 2 cases held already"
    assert failing(drifted) == 0
    assert gitmodel("golden", "accept", "fraud", "--all", "--reason", "Again").err == (
        "accepted 0 golden cases of fraud; 4 cases held already\n"
    )


def test_an_acceptance_of_nan_is_not_silent(gitmodel: Command, repo: Path, tmp_path: Path) -> None:
    x, y = (support.value_info(name, "float32", ["n", 2]) for name in "xy")
    np.savez(tmp_path / "x.npz", x=np.array([[-1, 1]], "float32"))
    for operator in ("Neg", "Log"):
        nodes = [onnx.helper.make_node(operator, ["x"], ["y"])]
        save.save(
            "fraud",
            support.model(nodes, [x], [y]),
            repo=repo,
            message="m",
            golden=tmp_path / "x.npz" if operator == "Neg" else None,
        )
    done = gitmodel("golden", "accept", "fraud", "--all", "--reason", "r")
    assert (
        "  y: max abs inf, max rel 1 (worst in x/0), top-1 changed in 0 of 1 row, 1 value became NaN or infinite"
        in done.err
    )


def test_outputs_are_recorded_where_there_are_none(gitmodel: Command, drifted: Path) -> None:
    (drifted / FOLDER / "test_data_set_1/output_0.pb").unlink()
    done = gitmodel("golden", "record", "fraud")
    assert done.err.splitlines()[0] == "recorded the outputs of 1 golden case, 3 had them already"
    assert failing(drifted) == 3
    assert gitmodel("golden", "record", "fraud", "--case", "cases/1").err == (
        "recorded the outputs of 0 golden cases, 1 had them already\n"
    )


def test_a_save_points_at_the_review(gitmodel: Command, drifted: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(support.linear_model(scale=1.02).SerializeToString())
    done = gitmodel("save", "fraud", tmp_path / "m.onnx")
    assert "see 'gitmodel golden review fraud'" in done.err


# review


def test_where_nobody_can_answer_nothing_is_asked(gitmodel: Command, drifted: Path) -> None:
    done = support.gitmodel("golden", "review", "fraud", cwd=drifted)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error[needs-terminal]: ")
    assert "gitmodel golden accept fraud --case CASE --reason TEXT" in line
    with terminal("golden", "review", "fraud", cwd=drifted, env={"CI": "true"}) as at:
        assert at.end() == 2
    assert "error[needs-terminal]" in at.text
    assert not list(drifted.rglob("*.new"))


def answer(at: Terminal, key: str) -> str:
    """What is shown before the next question, which is answered."""
    shown = at.until(PROMPT)
    at.type(f"{key}\n")
    return shown


def test_each_case_is_shown_with_its_statistics_and_decided(drifted: Path) -> None:
    with terminal("golden", "review", "fraud", cwd=drifted) as at:
        first = answer(at, "a")
        at.until("why: ")
        at.type("Trained on June\n")
        answer(at, "r")
        answer(at, "s")
        answer(at, "a")
        at.until(r"why \[Trained on June\]: ")
        at.type("\n")
        assert at.end() == 0
    assert "4 golden cases of fraud, 4 to decide\n  scores: max abs 0." in first
    assert re.search(r"top-1 changed in 0 of 4 rows\n\ncases/0  \(1 of 4, 1 row\)\n  scores float32 \[1, 3\]\n", first)
    for line in (
        r"    max abs    0\.\d+ at \[0, \d\]: 0\.\d+ -> 0\.\d+", r"    max rel    0\.\d+", r"    top-1      0 of 1 row changed",
        r"    tolerance  \d of 3 values beyond rtol 0\.001, atol 1e-05; rtol 0\.\d+ would pass, or atol 0\.\d+",
    ):  # fmt: skip
        assert re.search(line, first), first
    assert "2 accepted, 1 rejected, 1 skipped\nnext: git add models/fraud && git commit\n" in at.text
    assert failing(drifted) == 2
    assert (drifted / FOLDER / "accepted.yaml").read_text().startswith("- cases: [0, 3]\n  reason: Trained on June\n")
    assert [path.parent.name for path in (drifted / FOLDER).rglob("*.new")] == ["test_data_set_2"]


def test_the_tolerance_that_is_named_really_passes(drifted: Path) -> None:
    with terminal("golden", "review", "fraud", cwd=drifted) as at:
        answer(at, "q")
        at.end()
    found = [float(text) for text in re.findall(r"rtol (\S+) would pass", at.text)]
    card = drifted / "models/fraud/model.yaml"
    card.write_text(f"{card.read_text()}gates:\n  tolerance:\n    scores: {{rtol: {found[0]}, atol: 1.0e-05}}\n")
    done = support.gitmodel("golden", "list", "fraud", "--check", cwd=drifted)
    assert "cases/0:" not in done.stdout


def test_all_that_are_left_are_accepted_at_once(drifted: Path) -> None:
    with terminal("golden", "review", "fraud", "--reason", "All meant", cwd=drifted) as at:
        answer(at, "r")
        answer(at, "A")
        at.until(r"why \[All meant\]: ")
        at.type("\n")
        assert at.end() == 0
    assert "3 accepted, 1 rejected, 0 skipped" in at.text
    assert failing(drifted) == 1


def test_other_keys_explain_and_no_reason_takes_the_answer_back(drifted: Path) -> None:
    with terminal("golden", "review", "fraud", cwd=drifted) as at:
        for key in ("?", "yes", "", "as"):
            answer(at, key)
            assert "r  reject: the recorded outputs stand" in at.until(PROMPT)
            at.type("a\n")
            at.until("why: ")
            at.type("\n")
        answer(at, "q")
        assert at.end() == 0
    assert "0 accepted, 0 rejected, 0 skipped, 4 left" in at.text
    assert failing(drifted) == 4


@pytest.mark.parametrize("interrupts", [False, True], ids=["Ctrl-D", "Ctrl-C"])
def test_who_leaves_finds_it_as_it_was_left(drifted: Path, interrupts: bool) -> None:
    with terminal("golden", "review", "fraud", cwd=drifted) as at:
        answer(at, "r")
        at.until(PROMPT)
        if interrupts:
            assert at.interrupt() == 130
        else:
            at.type("\x04")
            assert at.end() == 0
    assert "Traceback" not in at.text
    with terminal("golden", "review", "fraud", cwd=drifted) as at:
        assert "3 to decide (1 rejected before)" in answer(at, "q")
        at.end()


def test_a_killed_review_goes_on_where_it_was(drifted: Path) -> None:
    with terminal("golden", "review", "fraud", "--reason", "June", cwd=drifted) as at:
        answer(at, "a")
        at.until("why")
        at.type("\n")
        answer(at, "r")
        at.until(PROMPT)
        at.kill()
    assert len(list((drifted / FOLDER).rglob("*.new"))) == 2
    assert support.git(drifted, "status", "--porcelain").splitlines()[0].endswith("test_data_set_0/output_0.pb")
    with terminal("golden", "review", "fraud", cwd=drifted) as at:
        assert "cases/2  (1 of 2, 1 row)" in answer(at, "s")
        answer(at, "s")
        assert at.end() == 0
    with terminal("golden", "review", "fraud", cwd=drifted) as at:
        assert "3 to decide" in answer(at, "q"), "the review was over, so all that fails is asked about"
        at.end()


def test_a_model_that_keeps_its_word_is_not_asked_about(
    repo: Path, save_model: Callable[..., object], cases: Path
) -> None:
    save_model(golden=cases)
    with terminal("golden", "review", "fraud", cwd=repo) as at:
        assert at.end() == 0
    assert at.text.startswith("4 golden cases of fraud, and all hold\n")


def test_what_the_model_refuses_is_told_and_cannot_be_accepted(drifted: Path) -> None:
    wrong = onnx.numpy_helper.from_array(np.zeros((1, 5), "float32"), "x")
    (drifted / FOLDER / "test_data_set_0/input_0.pb").write_bytes(wrong.SerializeToString())
    with terminal("golden", "review", "fraud", cwd=drifted) as at:
        shown = answer(at, "a")
        answer(at, "s")
        answer(at, "A")
        at.until("why: ")
        at.type("June\n")
        assert at.end() == 0
    assert "cases/0  (1 of 4, 1 row)\n  the model refuses it: Got invalid dimensions for input: x" in shown
    assert "[a]ccept" not in shown
    assert "3 accepted, 0 rejected, 1 skipped" in at.text


def test_changed_decisions_are_named_by_their_labels_and_names_do_not_steer_the_terminal(
    repo: Path, tmp_path: Path, cases: Path
) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\n")
    for scale in (1.0, -3.0):
        model = support.linear_model(scale=scale, output_name="y\x1b[31m")
        save.save(
            "fraud", model, repo=repo, golden=cases if scale > 0 else None, labels=tmp_path / "labels.txt", message="m"
        )
    with terminal("golden", "review", "fraud", cwd=repo) as at:
        answer(at, "q")
        at.end()
    assert re.search(r"top-1      1 of 1 row changed \(row 0: (cat|dog|cow) -> (cat|dog|cow)\)", at.text)
    assert "y?[31m" in at.text
    assert "\x1b[31m" not in at.text


def _said(*outputs: Closeness) -> list[str]:
    """What a review shows of a case with these outputs."""
    case = Failing("g/0", "g/test_data_set_0", 2, "wrong", {}, outputs, "", "")
    return [line.strip() for line in shown(case, 1, 1, ())][1:]


def test_outputs_that_cannot_be_compared_or_hold_are_one_line_each() -> None:
    gone = Closeness("a", "float32", (), "the model has no such output")
    fine = Closeness("b", "float32", (2,), max_abs=1e-6, values=2)
    assert _said(gone, fine) == [
        "a float32 []", "the model has no such output", "b float32 [2]", "within tolerance (largest difference 1e-06)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rtol", "atol", "says"),
    [
        (0.01, 0.25, "rtol 0.01 would pass, or atol 0.25"),
        (0.0101001, 0.2500001, "rtol 0.0102 would pass, or atol 0.251"),
        (math.inf, 0.5, "atol 0.5 would pass"),
        (math.inf, math.inf, "no tolerance lets it pass"),
    ],
)
def test_a_tolerance_is_named_rounded_up(rtol: float, atol: float, says: str) -> None:
    found = Closeness(
        "a", "float32", (2,), max_abs=1, beyond=1, values=2, tolerance=(1e-3, 1e-5), rtol=rtol, atol=atol, broken=1
    )
    lines = _said(found)
    assert lines[-1] == f"tolerance  1 of 2 values beyond rtol 0.001, atol 1e-05; {says}"
    assert "broken     1 value became NaN or infinite" in lines
