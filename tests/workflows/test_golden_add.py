"""New golden cases beside those there are: from npz, from traffic, drawn; never twice, never over others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from gitmodel.bundle.golden import Slice
from gitmodel.formats import golden_files, goldens
from gitmodel.formats.goldens import InvalidGolden
from gitmodel.runtime import RunFailed
from gitmodel.workflows import golden_add, save
from gitmodel.workflows.golden import CaseRefused, NoSuchCase, cases_of
from gitmodel.workflows.golden_add import Added, Origin
from tests import support

Add = Callable[..., Added]


@pytest.fixture
def add(repo: Path, save_model: Callable[..., object], tmp_path: Path) -> Add:
    """``fraud``, committed, without cases; ``add(x=array)`` adds what an npz of these arrays has."""
    save_model()

    def added(name: str = "held-out", options: Any = None, **arrays: np.ndarray) -> Added:
        path = tmp_path / f"{name}.npz"
        np.savez(path, allow_pickle=False, **arrays)
        return golden_add.add("fraud", Origin(path), repo=repo, **(options or {}))

    return added


def rows(count: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype("float32")


def held(repo: Path) -> list[str]:
    """The names of the cases there are, all of which must hold."""
    groups = cases_of("fraud", repo=repo, check=True)
    assert {row.wrong for group in groups for row in group.rows} <= {""}
    return [row.name for group in groups for row in group.rows]


def test_rows_become_cases_of_batch_one_with_the_models_outputs(add: Add, repo: Path) -> None:
    done = add(x=rows(3))
    assert done == Added("held-out", ("held-out/0", "held-out/1", "held-out/2"), 0, 0, (), 3, done.size)
    assert held(repo) == list(done.added)
    status = support.git(repo, "status", "--porcelain", "--untracked-files=all").splitlines()
    assert len(status) == 6
    assert all(line.startswith("?? models/fraud/golden/held-out/test_data_set_") for line in status)


def test_the_same_inputs_are_not_added_twice(add: Add, repo: Path) -> None:
    add(x=rows(3))
    again = add(x=rows(3))
    assert (again.added, again.known, again.total) == ((), 3, 3)
    other = add("elsewhere", x=np.concatenate([rows(2), rows(2, seed=6), rows(1, seed=6)]))
    assert (other.added, other.known, other.total) == (("elsewhere/0", "elsewhere/1"), 3, 5)
    assert add(x=rows(5)).added == ("held-out/3", "held-out/4")
    assert len(held(repo)) == 7


def test_a_slice_may_have_rows_that_others_have_too(add: Add, repo: Path) -> None:
    add(x=rows(3))
    part = Slice("country=DE", 0.95, 0.1)
    done = add("de", {"part": part}, x=rows(2))
    assert (done.group, len(done.added)) == ("country=DE", 2)
    assert (repo / "models/fraud/golden/country=DE/slice.yaml").read_text() == part.to_yaml()
    assert add("de", {"part": part}, x=rows(2)).added == ()
    assert add("de", {"group": "country=DE"}, x=rows(3)).added == ("country=DE/2",)


def test_a_group_stands_for_one_slice_with_one_measure(add: Add) -> None:
    add(x=rows(3))
    add("de", {"part": Slice("country=DE", 0.95)}, x=rows(2))
    for options, said in (
        ({"group": "held-out", "part": Slice("a=b")}, "the group 'held-out' is there and stands for no slice"),
        ({"group": "country=DE", "part": Slice("a=b")}, "stands for country=DE, with its own thresholds"),
        ({"part": Slice("country=DE", 0.5)}, r"edit golden/country=DE/slice\.yaml"),
    ):
        with pytest.raises(InvalidGolden, match=said):
            add("more", options, x=rows(1, seed=9))


def test_a_slice_of_any_name_has_a_folder(add: Add) -> None:
    assert add("x", {"part": Slice("who=young & old/new")}, x=rows(1)).group == "who=young-old-new"


def test_outputs_that_are_given_are_kept_and_those_the_model_does_not_give_are_named(add: Add, repo: Path) -> None:
    done = add(x=rows(2), scores=np.full((2, 3), 7, "float32"))
    assert done.wrong == done.added == ("held-out/0", "held-out/1")
    (group,) = cases_of("fraud", repo=repo, check=True)
    assert all(row.wrong for row in group.rows)


def test_other_outputs_for_the_same_inputs_are_refused_and_nothing_is_written(add: Add, repo: Path) -> None:
    add(x=rows(2))
    before = support.git(repo, "status", "--porcelain", "--untracked-files=all")
    with pytest.raises(
        InvalidGolden, match=r"golden case held-out/0 has the same inputs and other outputs.*golden review fraud"
    ):
        add("more", x=np.concatenate([rows(1, seed=8), rows(2)]), scores=np.full((3, 3), 7, "float32"))
    with pytest.raises(InvalidGolden, match="one more of the new cases has the same inputs"):
        add("more", x=np.ones((2, 4), "float32"), scores=np.arange(6, dtype="float32").reshape(2, 3))
    assert support.git(repo, "status", "--porcelain", "--untracked-files=all") == before


def test_a_case_that_a_crash_left_without_outputs_gets_them(add: Add, repo: Path) -> None:
    add(x=rows(2))
    (repo / "models/fraud/golden/held-out/test_data_set_1/output_0.pb").unlink()
    (repo / "models/fraud/golden/held-out/test_data_set_1/.output_0.pb.k1ll3d.tmp").write_bytes(b"half")
    done = add(x=rows(2))
    assert (done.added, done.known) == ((), 2)
    assert len(held(repo)) == 2
    assert not list((repo / "models").rglob("*.tmp"))


def test_a_limit_takes_some_from_everywhere(add: Add, repo: Path) -> None:
    values = np.arange(40, dtype="float32").reshape(10, 4)
    assert len(add("held-out", {"limit": 3}, x=values).added) == 3
    found = goldens.read(_folder(repo), "golden", _signature(), "fraud")
    assert [float(case.inputs["x"][0, 0]) for case in found] == [0.0, 12.0, 24.0]


def test_more_cases_than_a_model_may_have_are_refused(add: Add, repo: Path) -> None:
    add(x=rows(250))
    with pytest.raises(InvalidGolden, match="fraud would have 257 golden cases, and 256 is the most"):
        add("more", x=rows(7, seed=9))
    assert add("more", {"limit": 6}, x=rows(7, seed=9)).total == 256


def test_more_bytes_than_git_should_have_are_refused(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_files, "MAX_BYTES", 200)
    add(x=rows(1))
    with pytest.raises(InvalidGolden, match="they live in Git: take fewer rows"):
        add(x=rows(4))


def test_a_save_takes_no_more_than_may_be_added_later(
    repo: Path, save_model: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden_files, "MAX_BYTES", 200)
    with pytest.raises(InvalidGolden, match="they live in Git: take fewer rows"):
        save_model(golden=support.cases_npz(tmp_path / "cases.npz"))
    assert not (repo / "models").exists()


@pytest.mark.parametrize("name", ["my cases", ".hidden"])
def test_a_file_whose_name_is_no_group_needs_one(add: Add, name: str) -> None:
    with pytest.raises(InvalidGolden, match="is no name for a group of golden cases: name it with --group"):
        add(name, x=rows(1))
    assert add(name, {"group": "mine"}, x=rows(1)).added == ("mine/0",)


def test_what_the_model_refuses_is_refused(repo: Path, tmp_path: Path) -> None:
    save.save("picky", _gather(), repo=repo, message="one")
    np.savez(tmp_path / "x.npz", i=np.array([[1], [99]], "int64"))
    with pytest.raises(RunFailed, match="out of data bounds"):
        golden_add.add("picky", Origin(tmp_path / "x.npz"), repo=repo)
    assert cases_of("picky", repo=repo) == []


def test_drawn_cases_are_the_same_every_time_and_more_of_them_go_on(add: Add, repo: Path) -> None:
    first = golden_add.add("fraud", Origin(auto=8), repo=repo)
    assert first.added == tuple(f"auto/{i}" for i in range(8))
    again = golden_add.add("fraud", Origin(auto=8), repo=repo)
    assert (again.added, again.known) == ((), 8)
    more = golden_add.add("fraud", Origin(auto=16), repo=repo)
    assert (more.added, more.known) == (tuple(f"auto/{i}" for i in range(8, 16)), 8)
    found = goldens.read(_folder(repo), "golden", _signature(), "fraud")
    assert not found[0].inputs["x"].any()
    assert {len(case.inputs["x"]) for case in found} >= {1, 3}
    assert len(held(repo)) == 16


def test_inputs_that_the_model_refuses_are_left_out(repo: Path) -> None:
    save.save("picky", _gather(), repo=repo, message="one")
    done = golden_add.add("picky", Origin(auto=8), repo=repo)
    assert done.added
    assert done.left_out > 0
    (group,) = cases_of("picky", repo=repo, check=True)
    assert {row.wrong for row in group.rows} == {""}


def test_answers_that_are_no_numbers_are_left_out(repo: Path) -> None:
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    x, y = (support.value_info(name, "float32", ["n", 2]) for name in "xy")
    save.save("log", support.model(nodes, [x], [y]), repo=repo, message="one")
    done = golden_add.add("log", Origin(auto=6), repo=repo)
    assert done.added
    assert done.left_out > 0
    found = goldens.read(_folder(repo, "log"), "golden", _signature("y", 2), "log")
    assert all(np.isfinite(case.outputs["y"]).all() for case in found)


def test_a_model_that_answers_no_drawn_input_says_so(repo: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["minus"], ["a"])]
    nodes += [helper.make_node("Sub", ["a", "a"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["y"])]
    x, y = (support.value_info(name, "float32", ["n", 2]) for name in "xy")
    save.save("nan", support.model(nodes, [x], [y]), repo=repo, message="one")
    with pytest.raises(InvalidGolden, match=r"nan answers none of .* drawn inputs with numbers"):
        golden_add.add("nan", Origin(auto=2), repo=repo)


def test_requests_that_a_server_recorded_become_cases_as_they_came(add: Add, repo: Path, tmp_path: Path) -> None:
    from gitmodel import runtime

    (tmp_path / "m.onnx").write_bytes(support.linear_model().SerializeToString())
    session = runtime.open_session(tmp_path / "m.onnx")
    for number, count in enumerate((1, 4)):
        inputs = {"x": rows(count, seed=number)}
        files = golden_files.side_files("", "input", inputs) | golden_files.side_files(
            "", "output", session.run(inputs)
        )
        folder = tmp_path / "record" / "fraud" / "v1.0.0" / f"test_data_set_{number}"
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name.lstrip("/")).write_bytes(data)
    done = golden_add.add("fraud", Origin(traffic=tmp_path / "record"), repo=repo)
    assert (done.group, done.added, done.wrong) == ("traffic", ("traffic/0", "traffic/1"), ())
    (group,) = cases_of("fraud", repo=repo, check=True)
    assert [(row.rows, row.wrong) for row in group.rows] == [(1, ""), (4, "")]
    assert golden_add.add("fraud", Origin(traffic=tmp_path / "record"), repo=repo).known == 2


def test_requests_of_another_model_are_refused(add: Add, repo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "record" / "test_data_set_0"
    folder.mkdir(parents=True)
    for name, data in golden_files.side_files("", "input", {"z": rows(1)}).items():
        (folder / name.lstrip("/")).write_bytes(data)
    with pytest.raises(InvalidGolden, match="test_data_set_0 has an array 'z' the model has no tensor for"):
        golden_add.add("fraud", Origin(traffic=tmp_path / "record"), repo=repo)


# record ---------------------------------------------------------------------------------------------------------------


def test_outputs_are_recorded_where_there_are_none(add: Add, repo: Path) -> None:
    add(x=rows(3))
    folder = repo / "models/fraud/golden/held-out"
    kept = (folder / "test_data_set_0/output_0.pb").read_bytes()
    (folder / "test_data_set_1/output_0.pb").unlink()
    done = golden_add.record("fraud", repo=repo)
    assert (done.recorded, done.kept) == (("held-out/1",), 2)
    assert (folder / "test_data_set_0/output_0.pb").read_bytes() == kept
    assert len(held(repo)) == 3


def test_another_version_may_give_the_outputs(add: Add, repo: Path, save_model: Callable[..., object]) -> None:
    add(x=rows(2))
    folder = repo / "models/fraud/golden/held-out"
    first = [(folder / f"test_data_set_{i}/output_0.pb").read_bytes() for i in range(2)]
    save_model(scale=2.0)
    for i in range(2):
        (folder / f"test_data_set_{i}/output_0.pb").unlink()
    done = golden_add.record("fraud", repo=repo, by="fraud@HEAD~1", cases=["held-out/1"])
    assert (done.recorded, done.kept) == (("held-out/1",), 0)
    assert (folder / "test_data_set_1/output_0.pb").read_bytes() == first[1]
    golden_add.record("fraud", repo=repo)
    assert (folder / "test_data_set_0/output_0.pb").read_bytes() != first[0]


def test_nothing_is_recorded_when_one_case_cannot_be(add: Add, repo: Path) -> None:
    add(x=rows(2))
    folder = repo / "models/fraud/golden/held-out"
    for i in range(2):
        (folder / f"test_data_set_{i}/output_0.pb").unlink()
    wrong = golden_files.side_files("test_data_set_1", "input", {"x": np.ones((1, 5), "float32")})
    for path, data in wrong.items():
        (folder / path).write_bytes(data)
    with pytest.raises(CaseRefused, match="fraud refuses golden case held-out/1"):
        golden_add.record("fraud", repo=repo)
    assert not list(folder.rglob("output_*"))
    with pytest.raises(NoSuchCase):
        golden_add.record("fraud", repo=repo, cases=["nothing"])


def _folder(repo: Path, name: str = "fraud") -> Any:
    from gitmodel.bundle.folder import DiskFolder

    return DiskFolder(repo / "models" / name)


def _signature(output: str = "scores", width: int = 4) -> Any:
    from gitmodel.bundle.signature import Signature, TensorSpec

    return Signature((TensorSpec("x", "float32", ("n", width)),), (TensorSpec(output, "float32", ("n", None)),))


def _gather() -> onnx.ModelProto:
    """Looks up one of ten rows, and refuses other numbers."""
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
    i, y = support.value_info("i", "int64", ["n", 1]), support.value_info("y", "float32", ["n", 1, 2])
    return support.model(nodes, [i], [y], {"table": np.arange(20, dtype="float32").reshape(10, 2)})


def test_a_folder_is_no_npz_and_the_mend_says_what_to_do_with_one(add: Add, repo: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidGolden, match="is a folder") as refused:
        golden_add.add("fraud", Origin(tmp_path), repo=repo)
    assert "--from-traffic" in refused.value.hint
