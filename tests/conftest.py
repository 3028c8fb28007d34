"""Fixtures every test may use: an isolated Git and DVC, model repositories in temp folders, small real models."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import support

# How long an example takes says more about the machine than about the code. A change is judged by the same examples each
# time; --hypothesis-profile explore draws others, and more of them where a test has no number of its own.
settings.register_profile("gitmodel", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, derandomize=False, max_examples=300, print_blob=True)
settings.load_profile("gitmodel")

#: Begun first: at the end each would keep one worker busy while the others have nothing left.
_LONG = ("test_wheel.py", "test_mutations.py", "test_docs.py", "test_kill_points.py", "test_round_trips.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))


@pytest.fixture(autouse=True, scope="session")
def _isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's Git and DVC configuration neither leaks in nor is touched."""
    home = tmp_path_factory.mktemp("home")
    config = home / "gitconfig"
    config.write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n")
    patch = pytest.MonkeyPatch()
    for name in [key for key in os.environ if key.startswith(("GIT_", "DVC_"))]:
        patch.delenv(name)
    patch.setenv("GIT_CONFIG_GLOBAL", str(config))
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    patch.setenv("DVC_NO_ANALYTICS", "1")
    patch.setenv("DVC_GLOBAL_CONFIG_DIR", str(home / "dvc-global"))
    patch.setenv("DVC_SYSTEM_CONFIG_DIR", str(home / "dvc-system"))
    patch.setenv("DVC_SITE_CACHE_DIR", str(home / "dvc-site"))
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Whoever starts the tests in the background has Ctrl-C ignored in them, and in all that they start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def git_repo(tmp_path: Path) -> Path:
    """An empty Git repository."""
    path = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    return path


@pytest.fixture
def repo(git_repo: Path, tmp_path: Path) -> Path:
    """A model repository with a DVC remote folder beside it (``tmp_path/storage``), committed and without models."""
    from gitmodel.workflows import init

    (tmp_path / "storage").mkdir()
    init.init(git_repo, remote=str(tmp_path / "storage"))
    support.git(git_repo, "commit", "-qm", "Set up")
    return git_repo


@pytest.fixture
def save_model(repo: Path, tmp_path: Path) -> Callable[..., object]:
    """Saves a small linear model: ``save_model("fraud", scale=2.0, message="two")``; other keywords go to save."""

    def save(name: str = "fraud", *, scale: float = 1.0, message: str = "change", **options: object) -> object:
        from gitmodel.workflows import save as workflow

        path = tmp_path / f"{name}-{scale}.onnx"
        path.write_bytes(support.linear_model(scale=scale).SerializeToString())
        return workflow.save(name, [path], repo=repo, message=message, **options)  # type: ignore[arg-type]  # passed on

    return save


@pytest.fixture
def real_data() -> Path:
    """The folder of real models; see the marker ``realdata``."""
    path = Path(os.environ.get("GITMODEL_REALDATA", "../shared/data"))
    if not path.is_dir():
        pytest.skip(f"no real models at {path}: set GITMODEL_REALDATA")
    return path.resolve()
