"""DVC remotes of any kind: sends and brings objects by DVC's own transfer, and believes none of them until sha256 agrees."""

from __future__ import annotations

import configparser
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gitmodel.bundle.lock import FileEntry
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.storage.cache import Cache
from gitmodel.storage.files import replace_file

#: Called with (files done, files in all).
Progress = Callable[[int, int], None]


class NoRemote(GitmodelError):
    """No place to send weights to or bring them from."""

    code = "no-remote"


class RemoteFailed(GitmodelError):
    """The remote cannot be reached, or lacks what is asked of it."""

    code = "remote-failed"
    exit_code = ExitCode.INCOMPLETE


def load_config(dvc_dir: Path) -> Any:
    """DVC's configuration as DVC reads it: the repository's, the user's and the system's."""
    from dvc.config import Config, ConfigError

    try:
        return Config(str(dvc_dir))
    except ConfigError as error:
        raise NoRemote(f"DVC's configuration cannot be read ({error})", hint=f"mend {dvc_dir / 'config'}") from error


def config_for_url(url: str, scratch: Path) -> Any:
    """A configuration whose one remote is ``url``, with the user's own settings beneath. ``scratch`` keeps it."""
    return config_from_text(f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {url}\n", scratch)


def config_from_text(text: str, scratch: Path) -> Any:
    """The configuration a commit holds, for a bare repository, which has no folder it could be relative to."""
    replace_file(scratch / "config", text.encode())
    config = load_config(scratch)
    name = config["core"].get("remote", "")
    said = _url_in(text, name)
    if said and "://" not in said and not said.startswith("/"):
        raise NoRemote(
            f"the DVC remote's URL '{said}' is relative, which means nothing here",
            hint="name it absolutely: serve --remote URL",
        )
    return config


def _url_in(text: str, name: str) -> str:
    """The URL of a remote as it is written; what DVC gives back is made absolute already."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return ""
    sections = (parser[s] for s in parser.sections() if s.strip("'\"").replace('"', "").split() == ["remote", name])
    return next((section.get("url", "") for section in sections), "")


class Remote:
    """A DVC remote by name; without one, the default."""

    def __init__(self, config: Any, name: str = "") -> None:
        self.name = name or config["core"].get("remote", "")
        if not self.name:
            raise NoRemote(
                "no DVC remote is set", hint="run 'gitmodel init --remote URL' (or 'dvc remote add -d NAME URL')"
            )
        self._odb, self.url = _open(config, self.name)

    def push(self, cache: Cache, oids: Iterable[str], progress: Progress | None = None) -> int:
        """Sends what the remote lacks; a folder's listing goes after its files. Returns how many objects went."""
        return self._transfer(_local(cache), self._odb, list(oids), progress)

    def pull(self, cache: Cache, entries: Sequence[FileEntry], progress: Progress | None = None) -> int:
        """Brings what the cache lacks, verified on arrival. Raises RemoteFailed; wrong bytes do not stay in the cache."""
        wanted = list({entry.md5: entry for entry in entries if not cache.has(entry)}.values())
        if not wanted:
            return 0
        self._transfer(self._odb, _local(cache), [entry.md5 for entry in wanted], progress)
        arrived = [entry for entry in wanted if cache.has(entry)]
        wrong = [entry for entry in arrived if cache.digests.of(cache.path(entry.md5)) != entry.sha256]
        for entry in wrong:
            cache.path(entry.md5).unlink()
        if wrong:
            raise RemoteFailed(
                f"the remote '{self.name}' has other bytes for {wrong[0].path} than weights.lock says",
                hint="push it again from where it was saved",
            )
        if len(arrived) < len(wanted):
            raise self._missing(next(entry for entry in wanted if entry not in arrived))
        return len(wanted)

    def lacks(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """The entries whose objects are not there. Raises RemoteFailed."""
        try:
            there = set(self._odb.oids_exist([entry.md5 for entry in entries]))
        except Exception as error:
            raise self._failed(error) from error
        return [entry for entry in entries if entry.md5 not in there]

    def _missing(self, entry: FileEntry) -> RemoteFailed:
        try:
            there = bool(self._odb.fs.exists(self._odb.path))
        except Exception:
            there = False
        if not there:
            return RemoteFailed(
                f"the remote '{self.name}' ({self.url}) cannot be reached, or holds nothing",
                hint="check the URL and the way there; 'gitmodel push' where the model was saved fills it",
            )
        return RemoteFailed(
            f"the remote '{self.name}' ({self.url}) does not have {entry.path}, or not whole",
            hint="run 'gitmodel push' where it was saved",
        )

    def _failed(self, error: Exception) -> RemoteFailed:
        return RemoteFailed(
            f"the remote '{self.name}' ({self.url}) failed ({_reason(error)})",
            hint="check that it can be reached and run again",
        )

    def _transfer(self, source: Any, target: Any, oids: list[str], progress: Progress | None) -> int:
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.transfer import transfer

        logger = logging.getLogger("dvc_data")
        level, logger.level = logger.level, logging.CRITICAL  # failures are raised below, once, in our words
        try:
            result = transfer(
                source, target, {HashInfo("md5", oid) for oid in oids}, shallow=False, callback=_callback(progress)
            )
        except Exception as error:  # any file system library may raise anything here
            raise self._failed(error) from error
        finally:
            logger.level = level
        if result.failed:
            raise RemoteFailed(
                f"{len(result.failed)} objects could not be moved to or from '{self.name}' ({self.url})",
                hint="check rights and space there and run again",
            )
        return len(result.transferred)


def _open(config: Any, name: str) -> tuple[Any, str]:
    from dvc.config import ConfigError
    from dvc.fs import get_cloud_fs
    from dvc_data.hashfile.db import get_odb
    from dvc_objects.fs.errors import RemoteMissingDepsError

    try:
        fs_class, options, path = get_cloud_fs(config, name=name)
        fs = fs_class(**options)
        url = str(options.get("url") or path)
        return get_odb(fs, fs.join(path, "files", "md5"), hash_name="md5", **options), url
    except (ConfigError, KeyError) as error:
        raise NoRemote(
            f"DVC knows no usable remote '{name}' ({error})", hint="'dvc remote list' shows what there is"
        ) from error
    except (RemoteMissingDepsError, ImportError) as error:
        raise NoRemote(f"the remote '{name}' needs a plugin ({error})", hint="install it") from error


def _local(cache: Cache) -> Any:
    from dvc_data.hashfile.db.local import LocalHashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    return LocalHashFileDB(LocalFileSystem(), str(cache.objects), hash_name="md5")


def _callback(progress: Progress | None) -> Any:
    from fsspec.callbacks import Callback

    if progress is None:
        return Callback()
    report = progress

    class _Reporting(Callback):  # type: ignore[misc]  # fsspec is untyped
        def call(self, *_: Any, **__: Any) -> None:
            report(self.value, self.size or 0)

    return _Reporting()


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
