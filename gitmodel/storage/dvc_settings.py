"""DVC's setting that makes it read again what comes from a remote, instead of trusting it."""

from __future__ import annotations

from pathlib import Path

from gitmodel.storage.settings import load_config
from gitmodel.storage.setup import DVC_DIR


def unverified(root: Path) -> dict[str, bool]:
    """Remotes from which DVC takes whatever it gets, and whether the repository's own file sets them up. Raises NoRemote."""
    config = load_config(root / DVC_DIR)
    ours = config.load_one("repo")["remote"]
    return {name: name in ours for name, section in sorted(config["remote"].items()) if not section.get("verify")}


def verify(root: Path, name: str) -> None:
    """Sets ``verify`` for a remote that the repository's own file sets up. Raises NoRemote."""
    with load_config(root / DVC_DIR).edit("repo") as own:
        own["remote"][name]["verify"] = True
