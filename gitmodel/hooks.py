"""Git hooks: installed and removed, and what they do when Git calls: tell servers to look again, and report what came of it."""

from __future__ import annotations

import math
import stat
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from gitmodel import endpoint, registry, resources
from gitmodel.errors import GitmodelError
from gitmodel.files import replace_file
from gitmodel.git import Repository
from gitmodel.versions import ReleaseTag, StageTag, parse_tag

LOCAL = ("reference-transaction", "post-tag")
SERVER = ("post-receive",)
_MARK = "# gitmodel hook:"
_SUFFIX = ".user"
_PREFIX = "refs/tags/"
#: Seconds a hook waits for the servers unless git config ``gitmodel.wait`` says otherwise.
PUSH_WAIT, LOCAL_WAIT = 30.0, 5.0


class WrongRepository(GitmodelError):
    """Server hooks belong into a bare repository, local ones into a working one."""

    code = "wrong-repository"


class HookStatus(Struct, frozen=True):
    """One hook: ``installed``, ``absent``, ``foreign`` (somebody else's) or ``outdated``; whether a foreign one is chained."""

    name: str
    state: str
    chained: bool
    path: Path


def install(repo_path: Path, *, server: bool = False) -> list[HookStatus]:
    """Installs the shims; a hook that is there already is kept as ``NAME.user`` and called first. Safe to repeat."""
    repo = Repository.open(repo_path)
    if repo.bare != server:
        mend = (
            "leave out --server, or run it in the bare repository" if server else "add --server for a bare repository"
        )
        raise WrongRepository(f"{repo.root} is {'a bare' if repo.bare else 'no bare'} repository", hint=mend)
    for name in SERVER if server else LOCAL:
        path = repo.hooks_dir / name
        if path.exists() and not is_ours(path):
            kept = path.with_name(name + _SUFFIX)
            if kept.exists():
                raise WrongRepository(f"{kept} is in the way", hint="merge it with your hook and remove it")
            path.rename(kept)
        replace_file(path, _text(name), mode=0o755)
        path.chmod(0o755)  # one that is there already may have lost its x
    return status(repo_path)


def uninstall(repo_path: Path) -> list[HookStatus]:
    """Removes our shims and puts chained hooks back."""
    repo = Repository.open(repo_path)
    for name in (*LOCAL, *SERVER):
        path = repo.hooks_dir / name
        if not is_ours(path):
            continue
        path.unlink()
        kept = path.with_name(name + _SUFFIX)
        if kept.exists():
            kept.rename(path)
    return status(repo_path)


def status(repo_path: Path) -> list[HookStatus]:
    repo = Repository.open(repo_path)
    return [_status(repo.hooks_dir / name) for name in (SERVER if repo.bare else LOCAL)]


def after_tag(repo: Repository, lines: Iterable[str]) -> list[str]:
    """``reference-transaction``: tells the servers of this repository and those git config ``gitmodel.server`` names."""
    admins = [found.admin for found in endpoint.running(repo.state_dir)]
    admins += [named for named in repo.config_all("gitmodel.server") if named not in admins]
    return _tell_all(admins, _touched(lines), _wait(repo, LOCAL_WAIT))


def after_receive(repo: Repository, lines: Iterable[str]) -> list[str]:
    """``post-receive``: what the pusher reads. Says so when nobody serves; never fails a push that is done."""
    models = _touched(lines)
    if not models:
        return []
    stray = [tag for tags in models.values() for tag in tags if not _holds(repo, tag)]
    said = [f"the commit of {tag} has no models/{tag.model}: nothing to serve" for tag in stray]
    models = {model: kept for model, tags in models.items() if (kept := [tag for tag in tags if tag not in stray])}
    if not models:
        return said
    admins = [found.admin for found in endpoint.running(repo.state_dir)]
    if not admins:
        return [*said, "no server is running here; the next one will serve what was pushed"]
    return said + _tell_all(admins, models, _wait(repo, PUSH_WAIT))


def _holds(repo: Repository, tag: ReleaseTag | StageTag) -> bool:
    try:
        return registry.holds(repo, repo.commit_of(f"refs/tags/{tag}"), tag.model)
    except GitmodelError:
        return True  # a spelling of ours that is not the ref's: the server will say what it makes of it


def _tell_all(admins: Iterable[str], models: Mapping[str, list[ReleaseTag | StageTag]], wait: float) -> list[str]:
    """One deadline, ``wait`` seconds from now, for all servers and models together."""
    deadline = time.monotonic() + wait
    said: list[str] = []
    for admin in admins:
        for model, tags in models.items():
            left = max(deadline - time.monotonic(), 0.0)
            try:
                said += _tell(admin, model, left, tags)
            except endpoint.NoServer as error:
                said.append(error.message)
                break  # it will not answer the next question either
    return said


def _touched(lines: Iterable[str]) -> dict[str, list[ReleaseTag | StageTag]]:
    """Models whose release or stage tags these ``old new ref`` lines create, with the tags."""
    models: dict[str, list[ReleaseTag | StageTag]] = {}
    for line in lines:
        fields = line.rstrip("\n").split(" ", 2)
        if len(fields) != 3 or not fields[2].startswith(_PREFIX) or not fields[1].strip("0"):
            continue
        tag = parse_tag(fields[2].removeprefix(_PREFIX))
        if tag is not None:
            models.setdefault(tag.model, []).append(tag)
    return models


def _tell(admin: str, model: str, wait: float, tags: list[ReleaseTag | StageTag]) -> list[str]:
    body = {"parameters": {"wait": wait}}
    # The server answers when its own wait is over; a moment more and it is taken for hanging.
    answer = endpoint.request(admin, "POST", f"/v2/repository/models/{model}/load", body, timeout=wait + 1)
    if not isinstance(answer, dict) or not {"versions", "serving", "aspired", "settled"} <= set(answer):
        raise endpoint.NoServer(f"what listens at {admin} is no gitmodel server")
    return list(_outcomes(model, tags, answer))


def _outcomes(model: str, tags: list[ReleaseTag | StageTag], answer: dict[str, Any]) -> Iterable[str]:
    """A line per version the tags brought up, as the server reports it."""
    known = {row["version"]: row for row in answer["versions"]}
    serving = answer["serving"]
    wanted = [str(tag.version) for tag in tags if isinstance(tag, ReleaseTag)]
    if any(isinstance(tag, StageTag) for tag in tags):
        wanted += [version for version in answer["aspired"] if version not in wanted]
    told = False
    for version in wanted:
        row = known.get(version)
        # A version that was served and ended long ago is no news: Git repeats old tags when it packs them.
        if row is not None and (version in answer["aspired"] or row["reason"]):
            told = True
            yield _outcome(model, row, serving)
    if not answer["settled"]:
        yield f"{model} is still loading; 'gitmodel status' shows how it ends"
    elif not told:
        what = f"{model} {wanted[-1]}" if wanted else model
        yield f"{what} is here; {serving or 'nothing'} serves, as the server's policy has it"


def _outcome(model: str, row: dict[str, Any], serving: str | None) -> str:
    name = f"{model} {row['version']}"
    if row["state"] == "AVAILABLE":
        cases = (
            f"{row['golden_passed']}/{row['golden_cases']} golden cases"
            if row["golden_cases"]
            else "no golden cases recorded"
        )
        return f"{name} AVAILABLE in {row['seconds']:.1f} s, {cases}"
    if row["reason"]:
        still = f"{serving} goes on serving" if serving else "nothing serves yet"
        return f"{name} NOT SERVED: {row['reason']}; {still}"
    return f"{name} {row['state']}"


def _wait(repo: Repository, usual: float) -> float:
    try:
        wait = float(repo.config("gitmodel.wait") or usual)
    except ValueError:
        return usual
    return min(max(wait, 0.0), 600.0) if math.isfinite(wait) else usual


def is_ours(path: Path) -> bool:
    try:
        return _MARK in path.read_text(errors="replace")[:400]
    except OSError:
        return False


def _text(name: str) -> bytes:
    shim = (resources.hooks_dir() / name).read_text()
    return shim.replace("@PYTHON@", sys.executable.replace("'", "'\\''")).encode()


def _status(path: Path) -> HookStatus:
    kept = path.with_name(path.name + _SUFFIX).exists()
    if not path.exists():
        return HookStatus(path.name, "absent", kept, path)
    if not is_ours(path):
        return HookStatus(path.name, "foreign", kept, path)
    current = path.read_bytes() == _text(path.name) and path.stat().st_mode & stat.S_IXUSR
    return HookStatus(path.name, "installed" if current else "outdated", kept, path)
