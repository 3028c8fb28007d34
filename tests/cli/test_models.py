"""The author's commands as a person types them: what goes to stdout, what to stderr, and what comes of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitmodel import runtime
from tests import support
from tests.cli.command import Command
from tests.workflows import state


@pytest.fixture
def gitmodel(repo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(repo, monkeypatch, capfd)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return state.write(support.linear_model(), tmp_path / "linear.onnx")


@pytest.fixture
def saved(gitmodel: Command, linear: Path, tmp_path: Path) -> Command:
    """``fraud`` saved with everything beside it, committed and released as v1.0.0."""
    (tmp_path / "params.yaml").write_text("depth: 3\n")
    (tmp_path / "metrics.yaml").write_text("accuracy: 0.9\n")
    (tmp_path / "labels.txt").write_text("yes\nno\nmaybe\n")
    cases = support.cases_npz(tmp_path / "cases.npz", rows=3)
    assert gitmodel(
        "save", "fraud", linear, "--params", tmp_path / "params.yaml", "--metrics", tmp_path / "metrics.yaml",
        "--labels", tmp_path / "labels.txt", "--asset", cases, "--golden", cases, "--description", "Finds fraud.",
        "-m", "one", "--release", "auto",
    )  # fmt: skip
    return gitmodel


def again(gitmodel: Command, tmp_path: Path, scale: float) -> None:
    path = state.write(support.linear_model(scale=scale), tmp_path / "again.onnx")
    assert gitmodel("save", "fraud", path, "--golden", tmp_path / "cases.npz", "-m", "again")


def test_save_names_the_weights_that_only_one_file_has(gitmodel: Command, linear: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "part.npz", bias=np.zeros(3, "float32"), spare=np.zeros(3, "float32"))
    done = gitmodel("save", "fraud", linear, "--weights", tmp_path / "part.npz")
    assert done
    assert "note: the graph has no place for spare of the weights: kept beside it" in done.err
    assert "note: the weights lack weight: the graph's own stay" in done.err
    np.savez(tmp_path / "odd.npz", other=np.zeros(3, "float32"))
    refused = gitmodel("save", "fraud", linear, "--weights", tmp_path / "odd.npz")
    assert not refused
    assert "the graph has bias, weight, x, the weights have other" in refused.err


def test_init_says_what_it_did_and_what_comes_next(
    git_repo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gitmodel = Command(git_repo, monkeypatch, capfd)
    first = gitmodel("init", "--remote", "../storage", "--hooks")
    assert first
    assert first.out == ""
    for said in (
        "DVC set up",
        "weights go to ../storage",
        ".gitattributes",
        "local hooks installed",
        "next: git commit",
    ):
        assert said in first.err
    second = gitmodel("init", "--remote", "../storage")
    assert second
    assert "is a model repository already; nothing to change" in second.err
    assert gitmodel("init", "-q").err == ""


def test_save_says_what_was_saved_and_released(saved: Command, repo: Path, linear: Path) -> None:
    bundle = repo / "models" / "fraud"
    assert (bundle / "params.yaml").read_text() == "depth: 3\n"
    assert (bundle / "assets" / "cases.npz").is_file()
    assert "Finds fraud." in (bundle / "model.yaml").read_text()
    assert support.git(repo, "tag", "--list") == "fraud@v1.0.0"
    unchanged = saved("save", "fraud", linear, "-m", "two")
    assert unchanged
    assert unchanged.out == ""
    assert unchanged.err.startswith("fraud unchanged: 2 tensors, ")
    assert "committed" not in unchanged.err


def test_save_without_a_message_names_the_next_step(gitmodel: Command, linear: Path) -> None:
    done = gitmodel("save", "fraud", linear)
    assert done
    assert done.err.startswith("saved fraud: 2 tensors, ")
    assert "next: git add models/fraud && git commit, then gitmodel release fraud" in done.err
    assert gitmodel("save", "fraud", linear, "-q").err == ""


def test_save_warns_of_golden_cases_that_no_longer_hold(saved: Command, tmp_path: Path) -> None:
    path = state.write(support.linear_model(scale=2.0), tmp_path / "other.onnx")
    done = saved("save", "fraud", path, "-m", "hasty")
    assert done
    assert "warning: 3 golden cases recorded earlier no longer hold" in done.err


def test_save_takes_a_graph_and_its_weights(gitmodel: Command, repo: Path, tmp_path: Path) -> None:
    import h5py
    from onnx import TensorProto, numpy_helper

    model = support.linear_model()
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for tensor in model.graph.initializer:
            file[tensor.name] = numpy_helper.to_array(tensor)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    graph = state.write(model, tmp_path / "graph.onnx")
    assert gitmodel("save", "a", graph, "--weights", tmp_path / "w.h5")
    assert gitmodel("save", "b", graph, tmp_path / "w.h5")
    locks = [(repo / "models" / name / "weights.lock").read_bytes() for name in "ab"]
    assert locks[0] == locks[1]


def test_a_release_without_a_commit_is_wrong_usage(gitmodel: Command, linear: Path, repo: Path) -> None:
    done = gitmodel("save", "fraud", linear, "--release", "auto")
    assert done.code == 2
    assert "give -m MESSAGE" in done.err
    assert not (repo / "models").exists()


def test_a_save_that_releases_opens_its_model_once(
    gitmodel: Command, linear: Path, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release goes on with the session that saving has opened, and says what one that opens its own does."""
    assert gitmodel("save", "churn", linear, "-m", "one", "--release", "auto")
    opened: list[str] = []
    open_session = runtime.open_session

    def counted(path: Path, *, label: str = "", **options: Any) -> runtime.Session:
        opened.append(label)  # a session that measures noise is opened without one
        return open_session(path, label=label, **options)

    monkeypatch.setattr(runtime, "open_session", counted)
    changed = state.write(support.linear_model(scale=1.5), tmp_path / "changed.onnx")
    both = gitmodel("save", "churn", changed, "-m", "two", "--release", "auto")
    assert [label for label in opened if label] == [str(changed), "churn@v1.0.0"]
    support.git(repo, "tag", "-d", both.out.strip())
    shutil.rmtree(repo / ".git" / "gitmodel" / "replays")  # else it is remembered
    alone = gitmodel("release", "churn")
    assert alone.out == both.out
    assert both.err.splitlines()[2:] == alone.err.splitlines()


def test_a_release_the_gate_refuses_leaves_the_save_committed(saved: Command, repo: Path, tmp_path: Path) -> None:
    path = state.write(support.linear_model(input_name="features"), tmp_path / "renamed.onnx")
    cases = support.cases_npz(tmp_path / "f.npz", name="features")
    done = saved("save", "fraud", path, "--golden", cases, "-m", "renamed", "--release", "minor")
    assert done.code == 1
    assert "error[gate-refused]" in done.err
    assert support.git(repo, "log", "-1", "--format=%s") == "renamed"
    assert support.git(repo, "tag", "--list") == "fraud@v1.0.0"


def test_list_is_a_table_or_a_document(saved: Command, linear: Path, tmp_path: Path) -> None:
    assert saved("save", "churn", linear)
    again(saved, tmp_path, 1.01)
    shown = saved("list")
    header, churn, fraud = shown.out.splitlines()
    assert header.split() == ["MODEL", "LATEST", "STAGES", "SIZE", "CHANGED"]
    assert churn.split()[:3] == ["churn", "unreleased", "-"]
    assert "not committed" in churn
    assert fraud.split()[:4] == ["fraud", "v1.0.0", "*", "-"]
    assert "* changed since its latest release" in shown.err
    quiet = saved("list", "-q")
    assert (quiet.out, quiet.err) == (shown.out, "")
    document = saved("list", "--format", "json")
    rows = json.loads(document.out)
    assert [(row["name"], row["latest"], row["unreleased"]) for row in rows] == [
        ("churn", "", True),
        ("fraud", "v1.0.0", True),
    ]
    assert document.err == ""


def test_an_empty_list_says_how_to_begin(gitmodel: Command) -> None:
    shown = gitmodel("list")
    assert (shown.code, shown.out) == (0, "")
    assert "no models yet" in shown.err
    assert json.loads(gitmodel("list", "--format", "json").out) == []


def test_log_is_newest_first(saved: Command, repo: Path, tmp_path: Path) -> None:
    again(saved, tmp_path, 1.01)
    assert saved("release", "fraud")
    assert saved("promote", "fraud@v1.0.0", "prod")
    shown = saved("log", "fraud")
    lines = shown.out.splitlines()
    assert lines[0].split()[:3] == ["VERSION", "DATE", "AUTHOR"]
    assert [line.split()[0] for line in lines[1:]] == ["v1.1.0", "v1.0.0"]
    assert "prod" in lines[2]
    assert "first version" in lines[2]
    entries = json.loads(saved("log", "fraud", "--format", "json").out)
    assert [entry["version"] for entry in entries] == ["v1.1.0", "v1.0.0"]
    assert entries[1]["stages"] == ["prod"]
    support.git(repo, "tag", "fraud@v1.2.0")
    assert "warning: fraud@v1.2.0 is a lightweight tag" in saved("log", "fraud").err


def test_a_shallow_clone_is_said_to_be_one(saved: Command, repo: Path, tmp_path: Path) -> None:
    for command in (("list",), ("log", "fraud")):
        assert "shallow" not in saved(*command).err
    saved.folder = state.shallow_clone(repo, tmp_path / "shallow", "fraud@v1.0.0")
    said = "this clone is shallow, versions may be left out: 'git fetch --unshallow --tags' brings all there is\n"
    for command in (("list",), ("log", "fraud")):
        assert saved(*command).err.endswith(said)
    (line,) = saved("log", "fraud").out.splitlines()[1:]
    assert line.split()[-2:] == ["-", "-"], "in no stage, and nobody knows here what it changed"
    assert saved("log", "fraud", "--format", "json").err == ""
    support.git(saved.folder, "tag", "-d", "fraud@v1.0.0")
    assert saved("log", "fraud").err == f"fraud has no version yet; gitmodel release fraud makes one\n{said}"


def test_a_model_without_versions_says_how_to_make_one(gitmodel: Command, linear: Path) -> None:
    assert gitmodel("save", "fraud", linear)
    shown = gitmodel("log", "fraud")
    assert (shown.code, shown.out) == (0, "")
    assert "gitmodel release fraud makes one" in shown.err


def test_show_is_yaml_for_people_and_json_for_programs(saved: Command, tmp_path: Path) -> None:
    shown = saved("show", "fraud@v1.0.0")
    assert shown.err == ""
    assert "description: Finds fraud." in shown.out
    assert "shape: [batch, 4]" in shown.out
    assert "null" not in shown.out
    body = json.loads(saved("show", "fraud@v1.0.0", "--format", "json").out)
    assert (body["params"], body["labels"], body["golden_cases"]) == ({"depth": 3}, ["yes", "no", "maybe"], 3)
    assert json.loads(saved("show", tmp_path / "linear.onnx", "--format", "json").out)["name"] == "linear"


def test_checkout_says_what_is_there_now(saved: Command, repo: Path, tmp_path: Path) -> None:
    again(saved, tmp_path, 1.01)
    done = saved("checkout", "fraud@v1.0.0")
    assert done
    commit = support.git(repo, "rev-parse", "--short=10", "fraud@v1.0.0^{}")
    assert done.err == f"fraud@v1.0.0 ({commit}) is in the working tree; weight files rewritten: 2\n"
    shutil.rmtree(repo / "models" / "fraud" / "weights")
    assert saved("checkout", "fraud").err == "fraud is in the working tree; weight files rewritten: 2\n"


def test_push_and_pull_count_what_moved(saved: Command, repo: Path, tmp_path: Path) -> None:
    assert saved("push").err == "3 objects sent to 'storage' (1 bundle is there)\n"
    assert saved("push", "fraud@v1.0.0").err.startswith("0 objects sent")
    state.clone(repo, tmp_path / "clone")
    saved.folder = tmp_path / "clone"
    assert saved("pull").err == "2 objects brought and verified (1 bundle is here)\n"
    assert saved("pull", "-r", "storage", "fraud@v1.0.0").err.startswith("0 objects brought")


def test_another_repository_may_be_named(saved: Command, repo: Path, tmp_path: Path) -> None:
    saved.folder = tmp_path
    assert saved("list", "--repo", repo).out == saved("list", "-C", repo / "models").out != ""
    before = state.whole(repo)
    assert saved("save", "fraud", "linear.onnx", "-C", repo).err.startswith("fraud unchanged")
    assert state.whole(repo) == before


def test_a_user_without_a_home_can_work(repo: Path, linear: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CONFIG_HOME")}
    done = support.run("gitmodel", "save", "fraud", linear, "-m", "one", cwd=repo, env=environment)
    assert done.returncode == 0, done.stderr


#: As ``gitmodel``, with somebody who cuts the file short once its first block is stored.
_CUT = """
import os, sys
from gitmodel.__main__ import start
from gitmodel.storage import blocks
let_go, path = blocks.let_go, sys.argv.pop(1)
def cut(view):
    let_go(view)
    os.truncate(path, 8192)
blocks.let_go = cut
start()
"""


def test_a_file_that_is_cut_short_while_it_is_saved_costs_nothing_but_the_save(repo: Path, tmp_path: Path) -> None:
    path = state.write(support.wide_model(size=1000), tmp_path / "wide.onnx")
    given, head = path.read_bytes(), support.git(repo, "rev-parse", "HEAD")
    ended = support.run("python", "-c", _CUT, path, "save", "fraud", path, "-m", "one", cwd=repo)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == (
        "error[changed-meanwhile]: a file was cut short while it was read, or its disk failed: save it when nobody writes it\n"
    )
    assert support.git(repo, "rev-parse", "HEAD") == head
    path.write_bytes(given)
    assert support.run("python", "-m", "gitmodel", "save", "fraud", path, "-m", "one", cwd=repo).returncode == 0
    assert support.run("python", "-m", "gitmodel", "fsck", cwd=repo).returncode == 0
