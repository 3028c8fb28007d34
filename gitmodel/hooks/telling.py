"""What the hooks do once refs have changed: tell every server to look again, and say to whoever pushed or tagged what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from msgspec import Struct

from gitmodel import endpoint, registry
from gitmodel.errors import GitmodelError
from gitmodel.git import Repository
from gitmodel.versions import ReleaseTag, StageTag, parse_tag

_PREFIX = "refs/tags/"
#: Seconds a hook waits for the servers unless a push option or git config ``gitmodel.wait`` says otherwise.
PUSH_WAIT, LOCAL_WAIT = 30.0, 5.0
_MOST_WAIT = 600.0
_WAIT = "gitmodel.wait"
#: Seconds until the first word while servers are loading, and between those that follow.
_FIRST_WORD, _NEXT_WORD = 1.0, 5.0

#: Takes one line for the person at the other end, as soon as there is one.
Say = Callable[[str], object]
Models = Mapping[str, list[ReleaseTag | StageTag]]


class _Notice(Struct, frozen=True):
    """What servers are told: models with the tags that moved; until when (monotonic seconds) they are waited for; and the
    file of the secret that signs it, if any."""

    models: Models
    deadline: float
    secret: Path | None


def after_tag(repo: Repository, lines: Iterable[str], say: Say) -> None:
    """``reference-transaction``: tells the servers of this repository and those git config ``gitmodel.server`` names."""
    _tell_all(_servers(repo), _notice(repo, _touched(lines), LOCAL_WAIT), say)


def after_receive(repo: Repository, lines: Iterable[str], say: Say, options: Sequence[str] = ()) -> None:
    """``post-receive``: as ``after_tag``, with the ``options`` of the push. Says so when nobody serves; never fails a push that
    is done."""
    models = _touched(lines)
    if not models:
        return
    stray = [tag for tags in models.values() for tag in tags if not _holds(repo, tag)]
    for tag in stray:
        say(f"the commit of {tag} has no models/{tag.model}: nothing to serve")
    models = {model: kept for model, tags in models.items() if (kept := [tag for tag in tags if tag not in stray])}
    servers = _servers(repo)
    if models and not servers:
        say("no server is running here; the next one will serve what was pushed")
    _tell_all(servers, _notice(repo, models, PUSH_WAIT, options), say)


def _servers(repo: Repository) -> list[str]:
    found = [server.admin for server in endpoint.running(repo.state_dir)]
    return list(dict.fromkeys([*found, *repo.config_all("gitmodel.server")]))


def _notice(repo: Repository, models: Models, usual: float, options: Sequence[str] = ()) -> _Notice:
    secret = repo.config("gitmodel.secret")
    return _Notice(
        models, time.monotonic() + _wait(repo, usual, options), Path(secret).expanduser() if secret else None
    )


def _holds(repo: Repository, tag: ReleaseTag | StageTag) -> bool:
    try:
        return registry.holds(repo, repo.commit_of(f"refs/tags/{tag}"), tag.model)
    except GitmodelError:
        return True  # a spelling of ours that is not the ref's: the server will say what it makes of it


def _tell_all(servers: Sequence[str], notice: _Notice, say: Say) -> None:
    """All servers at once; their words come as they come, and a word in between while nothing does."""
    if not servers or not notice.models:
        return
    start, word = time.monotonic(), _FIRST_WORD
    with ThreadPoolExecutor(len(servers), thread_name_prefix="tell") as pool:
        pending = {pool.submit(_tell_server, server, notice): server for server in servers}
        while pending:
            passed = time.monotonic() - start
            done, _ = wait(pending, max(word - passed, 0.0), FIRST_COMPLETED)
            for future in done:
                server = pending.pop(future)
                for line in future.result():
                    say(f"{server}: {line}" if len(servers) > 1 and server not in line else line)
            if not done:
                say(f"waiting for {', '.join(sorted(notice.models))} since {word:.0f} s")
                word += _NEXT_WORD


def _tell_server(server: str, notice: _Notice) -> list[str]:
    """One deadline for all models together."""
    said: list[str] = []
    for model, tags in notice.models.items():
        left = max(notice.deadline - time.monotonic(), 0.0)
        try:
            said += _tell(server, model, left, tags, notice.secret)
        except GitmodelError as error:
            said.append(error.message)
            break  # it will not answer the next question either
    return said


def _touched(lines: Iterable[str]) -> dict[str, list[ReleaseTag | StageTag]]:
    """Models whose release or stage tags these ``old new ref`` lines create, with the tags."""
    models: dict[str, list[ReleaseTag | StageTag]] = {}
    for line in lines:
        fields = line.rstrip("\n").split(" ", 2)
        tag = tag_of(fields[2]) if len(fields) == 3 and fields[1].strip("0") else None
        if tag is not None:
            models.setdefault(tag.model, []).append(tag)
    return models


def tag_of(ref: str) -> ReleaseTag | StageTag | None:
    """The release or stage that a ref is the tag of."""
    return parse_tag(ref.removeprefix(_PREFIX)) if ref.startswith(_PREFIX) else None


def _tell(server: str, model: str, wait: float, tags: list[ReleaseTag | StageTag], secret: Path | None) -> list[str]:
    body = {"parameters": {"wait": wait}}
    path = f"/v2/repository/models/{model}/load"
    # The server answers when its own wait is over; a moment more and it is taken for hanging.
    answer = endpoint.request(server, "POST", path, body, timeout=wait + 1, secret=secret)
    if not isinstance(answer, dict) or not {"versions", "serving", "aspired", "settled"} <= set(answer):
        raise endpoint.NoServer(f"what listens at {server} is no gitmodel server")
    return list(_outcomes(model, tags, answer))


def _outcomes(model: str, tags: list[ReleaseTag | StageTag], answer: dict[str, Any]) -> Iterator[str]:
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


def _wait(repo: Repository, usual: float, options: Sequence[str] = ()) -> float:
    """Seconds: those of ``git push -o gitmodel.wait=N``, else of git config ``gitmodel.wait``, within reason."""
    named = [value for key, _, value in (option.partition("=") for option in options) if key == _WAIT]
    for text in (*named[-1:], repo.config(_WAIT)):
        if text:
            try:
                seconds = float(text)
            except ValueError:
                return usual
            return min(max(seconds, 0.0), _MOST_WAIT) if math.isfinite(seconds) else usual
    return usual
