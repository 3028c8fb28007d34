"""DVC's setting that makes it read again what comes from a remote, instead of trusting it."""

from __future__ import annotations

from pathlib import Path

from gitmodel.storage.settings import load_config
from gitmodel.storage.setup import DVC_DIR


def unverified(root: Path) -> list[str]:
    """Remotes from which DVC takes whatever it gets. Raises NoRemote when the configuration cannot be read."""
    remotes = load_config(root / DVC_DIR)["remote"]
    return sorted(name for name, section in remotes.items() if not section.get("verify"))


def verify(root: Path, name: str) -> None:
    """Sets ``verify`` for a remote that the repository's own configuration has. Raises NoRemote."""
    with load_config(root / DVC_DIR).edit("repo") as repo_level:
        if name in repo_level["remote"]:
            repo_level["remote"][name]["verify"] = True
