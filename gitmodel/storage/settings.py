"""DVC's configuration: the files it stands in, what it says of the cache and of remotes. Written by DVC alone."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gitmodel.storage.remote import BY_URL, NoRemote

if TYPE_CHECKING:
    from gitmodel.git import Repository

#: A line that cannot say where the cache is: nothing, a comment, the name of another section, ``key = value``.
_HARMLESS = re.compile(
    r"""\s*(?:\#.*|\[(?!\s*["']?\s*cache\b)[^\[\]]+\]\s*(?:\#.*)?|[^\[\s\#=][^=]*=(?!.*(?:'''|\"\"\")).*)?""",
    re.IGNORECASE | re.VERBOSE,
)
_ALONE = "_dvc_alone"
#: Options that run a command here or read a file here, or a file that names a command: a stranger's commit sets none of
#: them; the user's own configuration may.
_NOT_FROM_A_COMMIT = {
    "bearer_token_command", "cert_path", "configpath", "credentialpath", "gdrive_service_account_json_file_path",
    "gdrive_user_credentials_file", "key_path", "keyfile",
}  # fmt: skip
_NAME_IT = "name it with --remote URL, which 'gitmodel fetch' and 'gitmodel serve' take"


def load_config(dvc_dir: Path) -> Any:
    """DVC's configuration as DVC reads it: the repository's, the user's and the system's. Raises NoRemote."""
    from dvc.config import Config, ConfigError

    try:
        return Config(str(dvc_dir))
    except (ConfigError, OSError) as error:
        raise NoRemote(f"DVC's configuration cannot be read ({error})", hint=f"mend {dvc_dir / 'config'}") from error


def remote_config(dvc_dir: Path | None, committed: str, wanted: str = "") -> Any:
    """The configuration that has the remote ``wanted``, a URL, a name, or '' for the default one.

    That is the working tree's, whose ``dvc_dir`` it is; without one, what a commit holds. Raises NoRemote.
    """
    if is_url(wanted):
        return config_for_url(wanted if "://" in wanted else os.path.abspath(wanted))  # noqa: PTH100  # folds '..', too
    if dvc_dir is not None:
        return load_config(dvc_dir)
    if not committed:
        raise NoRemote("the commit has no .dvc/config, so nobody knows where its weights are", hint=_NAME_IT)
    return config_from_text(committed, wanted)


def is_url(remote: str) -> bool:
    """Whether a remote is named by where it is; a name has no slash."""
    return "/" in remote


def committed_config(repo: Repository, commit: str = "") -> str:
    """What a commit holds as DVC's configuration, or HEAD when it holds none; '' when neither does."""
    for at in filter(None, (commit, repo.head())):
        if found := repo.folder(at).read(".dvc/config"):
            return found.decode(errors="replace")
    return ""


def config_for_url(url: str) -> Any:
    """A configuration whose one remote is ``url``, with the user's and the system's beneath. Raises NoRemote."""
    from dvc.config import Config, ConfigError

    _refuse_relative(url)
    try:
        return Config(config={"core": {"remote": BY_URL}, "remote": {BY_URL: {"url": url}}})
    except (ConfigError, OSError) as error:
        raise NoRemote(f"DVC takes no remote '{url}' ({error})", hint="name a folder, s3://, ssh:// ...") from error


def config_from_text(text: str, name: str = "", *, dvc_dir: Path | None = None, own: bool = False) -> Any:
    """The remotes of a commit's configuration, with the user's and the system's beneath, without what is not a commit's
    business. ``dvc_dir`` is what it was written for: relative URLs start there, and ``own`` says that the
    ``config.local`` in it is the user's, and goes on top.

    Raises NoRemote, also when the remote ``name``, or the default one, is relative and there is no ``dvc_dir``.
    """
    from dvc.config import Config, ConfigError

    written = _parsed(text)
    remotes = {
        remote: {key: value for key, value in options.items() if key not in _NOT_FROM_A_COMMIT}
        for remote, options in written["remote"].items()
    }
    if dvc_dir is not None:
        for options in remotes.values():
            options["url"] = _absolute(str(options.get("url", "")), dvc_dir)
    default = {key: value for key, value in written.get("core", {}).items() if key == "remote"}
    try:
        config = Config(config={"core": default, "remote": remotes})
        if own:
            config.merge(Config(local_dvc_dir=str(dvc_dir)).load_one("local"))
    except (ConfigError, OSError) as error:
        raise NoRemote(
            f"DVC's configuration cannot be read ({error})", hint="'dvc config --list' tells more"
        ) from error
    wanted = name.lower() or config["core"].get("remote", "")
    _refuse_relative(str(remotes.get(wanted, {}).get("url", "")))
    return config


def _absolute(url: str, dvc_dir: Path) -> str:
    """As DVC reads a relative URL: from the folder its configuration is in."""
    return url if not url or "://" in url else os.path.abspath(dvc_dir / url)  # noqa: PTH100  # folds '..', too


def _refuse_relative(url: str) -> None:
    if url and "://" not in url and not url.startswith("/"):
        raise NoRemote(
            f"the DVC remote's URL '{url}' is relative, which means nothing without a working tree",
            hint=_NAME_IT,
        )


def cache_dir(dvc_dir: Path) -> Path:
    """Where DVC keeps its cache. DVC itself, which takes 80 ms to import, is asked only when a file may name a place."""
    if all(_is_silent(path) for path in config_files(dvc_dir)):
        return dvc_dir / "cache"
    return _cache_of(load_config(dvc_dir), dvc_dir / "cache")


def own_cache_dir(dvc_dir: Path, text: str, *, own: bool) -> Path:
    """As ``cache_dir``, with a commit's ``text`` in place of the file that is checked out; ``own`` as above. A place that
    only the commit names must be a cache already: nothing is made where a commit says. Raises NoRemote."""
    system, user, _, local = config_files(dvc_dir)
    default = dvc_dir / "cache"
    if not all(map(_is_silent, (system, user, *([local] if own else [])))):
        from dvc.config import Config

        found = _cache_of(Config(local_dvc_dir=str(dvc_dir) if own else None), default)
        if found != default:
            return found
    if not all(map(_HARMLESS.fullmatch, text.splitlines())):
        named = _parsed(text).get("cache", {}).get("dir")
        if named and (Path(_absolute(str(named), dvc_dir)) / "files" / "md5").is_dir():
            return Path(_absolute(str(named), dvc_dir))
    return default


def _cache_of(config: Any, default: Path) -> Path:
    from dvc.fs import get_cloud_fs

    # As DVC's CacheManager decides: a remote standing in for the cache (an old way), a folder, the default.
    cache = config["cache"]
    where = {"name": cache["local"]} if cache.get("local") else {"url": cache.get("dir") or str(default)}
    return Path(get_cloud_fs(config, **where)[2])


def _parsed(text: str) -> Any:
    """A configuration's text as DVC reads it. Raises NoRemote."""
    from dvc.config import Config, ConfigError
    from dvc_objects.fs.memory import MemoryFileSystem

    memory = MemoryFileSystem(global_store=False)  # DVC, too, reads a commit's configuration from no disk
    memory.pipe_file(f"/{Config.CONFIG}", text.encode())
    try:
        written = Config.load_file(f"/{Config.CONFIG}", fs=memory)
        Config.validate(written)
    except (ConfigError, OSError) as error:
        raise NoRemote(
            f"DVC's configuration cannot be read ({error})", hint="mend .dvc/config and commit it"
        ) from error
    return written


def config_files(dvc_dir: Path) -> list[Path]:
    """The four files DVC reads, the weakest first: the system's, the user's, the repository's, the clone's own."""
    dirs = _dvc_dirs()
    above = [Path(dirs.system_config_dir()), Path(dirs.global_config_dir())]
    return [*(folder / "config" for folder in above), dvc_dir / "config", dvc_dir / "config.local"]


def _dvc_dirs() -> Any:
    """DVC's own module of where its folders are, without DVC: whatever is imported from ``dvc`` first sets up logging and
    progress bars, which takes 40 ms."""
    if "dvc" not in sys.modules and _ALONE not in sys.modules:
        spec = importlib.util.find_spec("dvc")
        package = ModuleType(_ALONE)
        package.__path__ = list((spec and spec.submodule_search_locations) or ())
        sys.modules[_ALONE] = package
    return import_module("dvc.dirs" if "dvc" in sys.modules else f"{_ALONE}.dirs")


def _is_silent(path: Path) -> bool:
    """Whether a file says nothing of the cache; False, too, when DVC would complain about it."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False
    return all(map(_HARMLESS.fullmatch, lines))
