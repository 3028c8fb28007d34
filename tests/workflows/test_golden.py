"""Golden cases as a list: groups, slices, sizes, what holds; by any reference, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gitmodel import registry
from gitmodel.bundle.bundle import NotServable
from gitmodel.bundle.golden import Slice
from gitmodel.formats.goldens import InvalidGolden
from gitmodel.registry import UnknownModel
from gitmodel.workflows import golden, golden_add, save
from gitmodel.workflows.golden import NoSuchCase, cases_of, chosen
from gitmodel.workflows.golden_add import Origin
from gitmodel.workflows.workspace import Workspace
from tests import support


def test_groups_are_listed_with_what_they_stand_for(
    repo: Path, save_model: Callable[..., object], tmp_path: Path
) -> None:
    save_model(golden=support.cases_npz(tmp_path / "cases.npz"))
    golden_add.add("fraud", Origin(auto=4), repo=repo)
    npz = support.cases_npz(tmp_path / "de.npz", rows=3)
    golden_add.add("fraud", Origin(npz), repo=repo, part=Slice("country=DE", 0.95))
    groups = cases_of("fraud", repo=repo)
    assert [(group.name, group.slice, len(group.rows)) for group in groups] == [
        ("auto", None, 4), ("cases", None, 16), ("country=DE", Slice("country=DE", 0.95), 3),
    ]  # fmt: skip
    assert all(row.wrong is None and row.size > 0 for group in groups for row in group.rows)
    assert [row.rows for row in groups[0].rows] == [1, 3, 0, 33], "the edges come early"


def test_a_check_tells_which_hold(repo: Path, save_model: Callable[..., object], tmp_path: Path) -> None:
    save_model(golden=support.cases_npz(tmp_path / "cases.npz"))
    assert {row.wrong for group in cases_of("fraud", repo=repo, check=True) for row in group.rows} == {""}
    save_model(scale=1.01)
    (group,) = cases_of("fraud", repo=repo, check=True)
    assert all("output 'scores' differs by up to" in (row.wrong or "") for row in group.rows)
    (before,) = cases_of("fraud@HEAD~1", repo=repo, check=True)
    assert {row.wrong for row in before.rows} == {""}
    assert support.git(repo, "status", "--porcelain") == ""


def test_a_model_without_cases_has_none(repo: Path, save_model: Callable[..., object]) -> None:
    save_model()
    assert cases_of("fraud", repo=repo, check=True) == []
    with pytest.raises(UnknownModel):
        cases_of("nobody", repo=repo)


def test_a_file_outside_any_repository_has_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(support.linear_model().SerializeToString())
    assert cases_of(str(tmp_path / "m.onnx"), repo=tmp_path, check=True) == []


def test_a_checkpoint_cannot_be_run(repo: Path) -> None:
    save.save("weights", {"w": np.ones(3, "float32")}, repo=repo, message="one")
    assert cases_of("weights", repo=repo) == []
    with pytest.raises(NotServable):
        cases_of("weights", repo=repo, check=True)
    with pytest.raises((NotServable, InvalidGolden)):
        golden_add.add("weights", Origin(auto=1), repo=repo)


def test_cases_are_chosen_by_name_and_by_group(repo: Path, change: Callable[..., object]) -> None:
    change(1.0)
    place = Workspace.of(repo)
    with golden.running(place, registry.working_bundle(place.repo, "fraud")) as model:
        assert [case.name for case in chosen("fraud", model.cases, ["cases/3", "cases/0"])] == ["cases/0", "cases/3"]
        assert len(chosen("fraud", model.cases, ["cases"])) == len(chosen("fraud", model.cases, [])) == 16
        with pytest.raises(NoSuchCase, match="fraud has no golden case 'cases/16': 'gitmodel golden list fraud'"):
            chosen("fraud", model.cases, ["cases/3", "cases/16"])
