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
from gitmodel.errors import GitmodelError, some
from gitmodel.git import Repository
from gitmodel.versions import ReleaseTag, StageTag, parse_tag

_PREFIX = "refs/tags/"
#: Seconds a hook waits for the servers unless a push option or git config ``gitmodel.wait`` says otherwise.
PUSH_WAIT, LOCAL_WAIT = 30.0, 5.0
_MOST_WAIT = 600.0
_WAIT = "gitmodel.wait"
#: Seconds until the first word while servers are loading, and between those that follow.
_FIRST_WORD, _NEXT_WORD = 1.0, 5.0
#: Seconds in which many models are told of that nobody waits for any more.
_AFTERWARDS = 2.0


#: Takes one line for the person at the other end, as soon as there is one.
Say = Callable[[str], object]
Models = Mapping[str, list[ReleaseTag | StageTag]]


class _Arrival(Struct, frozen=True):
    """A tag that came, and its commit, '' where Git does not say. ``counts`` for a stage's newest move, which stands on
    ``version``, '' for none."""

    tag: ReleaseTag | StageTag
    commit: str
    counts: bool
    version: str


class _Notice(Struct, frozen=True):
    """What servers are told of, by model; until when (monotonic seconds) they are waited for; and the file of the secret that
    signs it, if any."""

    models: Mapping[str, list[_Arrival]]
    deadline: float
    secret: Path | None


def after_tag(repo: Repository, lines: Iterable[str], say: Say) -> None:
    """``reference-transaction``: tells the servers of this repository and those git config ``gitmodel.server`` names."""
    models, servers = _touched(lines), _servers(repo)
    if models and servers:
        _tell_all(servers, _notice(repo, models, LOCAL_WAIT, say), say)


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
    if models and servers:
        _tell_all(servers, _notice(repo, models, PUSH_WAIT, say, options), say)
    elif models:
        say("no server is running here; the next one will serve what was pushed")


def _servers(repo: Repository) -> list[str]:
    found = [server.admin for server in endpoint.running(repo.state_dir)]
    return list(dict.fromkeys([*found, *repo.config_all("gitmodel.server")]))


def _notice(repo: Repository, models: Models, usual: float, say: Say, options: Sequence[str] = ()) -> _Notice:
    secret = repo.config("gitmodel.secret")
    deadline = time.monotonic() + _wait(repo, usual, say, options)
    arrived = {model: _arrivals(repo, model, tags) for model, tags in models.items()}
    return _Notice(arrived, deadline, Path(secret).expanduser() if secret else None)


def _arrivals(repo: Repository, model: str, tags: Sequence[ReleaseTag | StageTag]) -> list[_Arrival]:
    try:
        commits = registry.standing(repo, model)
        moves = registry.stage_moves(repo, model) if any(isinstance(tag, StageTag) for tag in tags) else []
    except GitmodelError:  # the server, which reads them itself, says what it cannot read
        commits, moves = {}, []
    newest = {move.tag.stage: move for move in moves}
    versions = {str(move.tag): str(move.version or "") for move in newest.values()}
    return [
        _Arrival(tag, commits.get(name, ""), name in versions, versions.get(name, ""))
        for tag, name in ((tag, str(tag)) for tag in tags)
    ]


def _holds(repo: Repository, tag: ReleaseTag | StageTag) -> bool:
    try:
        return registry.holds(repo, repo.commit_of(f"refs/tags/{tag}"), tag.model)
    except GitmodelError:
        return True  # a spelling of ours that is not the ref's: the server will say what it makes of it


def _tell_all(servers: Sequence[str], notice: _Notice, say: Say) -> None:
    """All servers at once; their words come as they come, and a word in between while nothing does."""
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
                say(f"waiting for {some(sorted(notice.models))} since {word:.0f} s")
                word += _NEXT_WORD


def _tell_server(server: str, notice: _Notice) -> list[str]:
    """One deadline for all models together. After it those that the server can answer of at once are still asked of, for a moment:
    it looks at all of them when it is asked of one."""
    said: list[str] = []
    models = list(notice.models)
    for place, (model, arrived) in enumerate(notice.models.items()):
        left = max(notice.deadline - time.monotonic(), 0.0)
        if place and time.monotonic() > notice.deadline + _AFTERWARDS:
            said.append(f"the wait is over before {some(models[place:])}; 'gitmodel status' shows what becomes of them")
            break
        try:
            said += _tell(server, model, left, arrived, notice.secret)
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


def _tell(server: str, model: str, wait: float, arrived: list[_Arrival], secret: Path | None) -> list[str]:
    body = {"parameters": {"wait": wait}}
    path = f"/v2/repository/models/{model}/load"
    # The server answers when its own wait is over; a moment more and it is taken for hanging.
    answer = endpoint.request(server, "POST", path, body, timeout=wait + 1, secret=secret)
    if not isinstance(answer, dict) or not {"versions", "serving", "aspired", "settled", "tags"} <= set(answer):
        raise endpoint.NoServer(f"what listens at {server} is no gitmodel server")
    absent = [one for one in arrived if one.commit and answer["tags"].get(str(one.tag)) != one.commit]
    here = [one for one in arrived if one not in absent]
    said = [_absent(absent, answer["serving"])] if absent else []
    return said + (list(_outcomes(model, here, answer)) if here else [])


def _absent(arrived: list[_Arrival], serving: str | None) -> str:
    """One on another machine has a repository of its own, which may fetch later."""
    names = some([str(one.tag) for one in arrived])
    return f"the server does not have {names} yet: {serving or 'nothing'} serves until it has fetched and looks again"


def _outcomes(model: str, arrived: list[_Arrival], answer: dict[str, Any]) -> Iterator[str]:
    """A line per version the tags brought up, as the server reports it, and what became of stages and of what was withdrawn."""
    known = {row["version"]: row for row in answer["versions"]}
    serving, aspired = answer["serving"], answer["aspired"]
    policy = f"{serving or 'nothing'} serves, as the server's policy has it"
    releases = [one.tag for one in arrived if isinstance(one.tag, ReleaseTag)]
    withdrawn = [str(tag.version) for tag in releases if tag.cancelled]
    moves = [one for one in arrived if one.counts]
    wanted = [str(tag.version) for tag in releases if not tag.cancelled]
    wanted += [one.version for one in moves if one.version in aspired]
    if withdrawn:  # what is to take their place may not load
        wanted += [version for version in aspired if version in known and known[version]["reason"]]
    told = bool(withdrawn)
    for version in dict.fromkeys(wanted):
        row = known.get(version)
        # A version that was served and ended long ago is no news: Git repeats old tags when it packs them.
        if row is not None and (version in aspired or row["reason"]):
            told = True
            yield _outcome(model, row, serving)
    for one in moves:
        if one.version not in aspired:
            told = True
            yield f"{_moved(one)}; {policy}"
    if withdrawn:
        goes_on = f"{serving} goes on serving until another does, or the server is restarted"
        yield f"{model} {', '.join(withdrawn)} withdrawn; {goes_on if serving in withdrawn else policy}"
    states = {known[version]["state"] for version in wanted if version in aspired and version in known}
    if not answer["settled"] and states != {"AVAILABLE"}:  # else it waited for another model
        yield f"{model} is still loading; 'gitmodel status' shows how it ends"
    elif not told:
        yield f"{f'{model} {wanted[-1]}' if wanted else arrived[-1].tag} is here; {policy}"


def _moved(one: _Arrival) -> str:
    stage = str(one.tag).rpartition("#")[0]
    if one.tag.cancelled:
        return f"{stage.removesuffix('!')} withdrawn"
    return f"{stage} is on {one.version or 'no released version'} now"


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


def _wait(repo: Repository, usual: float, say: Say, options: Sequence[str] = ()) -> float:
    """Seconds: those of ``git push -o gitmodel.wait=N``, else of git config ``gitmodel.wait``, within reason; ``usual`` where that is
    no number, and then it is said."""
    named = [value for key, _, value in (option.partition("=") for option in options) if key == _WAIT]
    text = next(filter(None, (*named[-1:], repo.config(_WAIT))), "")
    if not text:
        return usual
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        say(f"{_WAIT} is {text[:20]!r}, which is no number of seconds: the wait is up to {usual:.0f} s")
        return usual
    return min(max(seconds, 0.0), _MOST_WAIT)
