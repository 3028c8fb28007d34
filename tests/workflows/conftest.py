"""Fixtures of the workflow tests: versions of a model that keep their own golden cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gitmodel.workflows.release import release
from tests import support

Change = Callable[..., object]


@pytest.fixture
def change(save_model: Callable[..., object], tmp_path: Path) -> Change:
    """Commits ``fraud`` anew with golden cases of its own: ``change(1.01)`` owes a minor bump after ``change(1.0)``."""

    def saved(scale: float, **options: object) -> object:
        return save_model(scale=scale, golden=support.cases_npz(tmp_path / "cases.npz"), **options)

    return saved


@pytest.fixture
def released(repo: Path, change: Change) -> Path:
    """``fraud`` with 16 golden cases, released as v1.0.0."""
    change(1.0)
    release("fraud", repo=repo)
    return repo
