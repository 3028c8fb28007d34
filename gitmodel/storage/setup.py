"""DVC in a repository: made on ``init``, found afterwards."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from gitmodel.errors import GitmodelError
from gitmodel.storage.cache import Cache
from gitmodel.storage.digests import Digests
from gitmodel.storage.settings import cache_dir, load_config

DVC_DIR = ".dvc"


class NotInitialised(GitmodelError):
    """A Git repository that is no model repository yet."""

    code = "not-initialised"


def is_initialised(root: Path) -> bool:
    return (root / DVC_DIR / "config").is_file()


def init(root: Path) -> bool:
    """Makes ``root`` a DVC repository; returns False when it is one."""
    if is_initialised(root):
        return False
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logger = logging.getLogger("dvc")
    level, logger.level = logger.level, logging.WARNING  # its own words about next steps are not ours
    try:
        Repo.init(str(root)).close()
    except DvcException as error:
        raise NotInitialised(
            f"DVC could not set up {root} ({error})", hint="mend what DVC names and run again"
        ) from error
    finally:
        logger.level = level
    return True


def set_remote(root: Path, url: str, name: str = "storage") -> bool:
    """Makes ``url`` the default remote; returns False when it is that already. An existing one of that name is moved."""
    config = load_config(root / DVC_DIR)
    with config.edit("repo") as repo_level:
        before = repo_level["remote"].get(name, {}).get("url", "")
        if (
            repo_level["core"].get("remote") == name
            and before
            and _absolute(root / DVC_DIR, before) == _absolute(Path(), url)
        ):
            return False
        repo_level["remote"].setdefault(name, {})["url"] = url
        repo_level["core"]["remote"] = name
    return True


def _absolute(base: Path, url: str) -> str:
    """A URL for comparison: DVC keeps a relative folder relative to its own configuration."""
    return url if "://" in url else os.path.abspath(base / url)  # noqa: PTH100  # '..' is folded without looking


def open_caches(roots: Iterable[Path]) -> list[Cache]:
    """Those of the model repositories among these working trees."""
    return [open_cache(root) for root in roots if is_initialised(root)]


def open_cache(root: Path, digests: Digests | None = None) -> Cache:
    """The cache DVC uses here; ``digests`` is its memory. Raises NotInitialised."""
    if not is_initialised(root):
        raise NotInitialised(f"{root} is no model repository yet", hint="run 'gitmodel init'")
    return Cache(cache_dir(root / DVC_DIR), digests)
