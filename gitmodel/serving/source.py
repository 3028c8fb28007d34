"""Reads refs and publishes the whole set of aspired versions: on a hint, and slowly by itself. Never meets the manager."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from gitmodel import registry
from gitmodel.git import Repository
from gitmodel.serving.policy import AspiredVersion, VersionPolicy
from gitmodel.versions import is_name

#: What can be served of each model, as version and commit: all that was released and not withdrawn.
Released = Mapping[str, Collection[tuple[str, str]]]
#: Takes model -> aspired versions, the model somebody asked about, model -> stage -> the version it stands on, and what is released;
#: returns a number that grows with each publication.
Publish = Callable[[Mapping[str, tuple[AspiredVersion, ...]], str, Mapping[str, Mapping[str, str]], Released], int]


class Source:
    """Looks at one repository. Refs are the truth: what a hint said is never used, only that there was one."""

    def __init__(
        self,
        repo: Path,
        publish: Publish,
        *,
        models: Collection[str] = (),
        policy: VersionPolicy | None = None,
        poll: float = 5.0,
    ) -> None:
        self._path, self._publish, self._models = repo, publish, frozenset(models)
        self._policy = policy or VersionPolicy()
        self._poll, self._stop = poll, threading.Event()
        self._looking, self._counting = threading.Lock(), threading.Lock()
        self._asked = 0
        #: A commit never loses the model it has, so each is looked into once.
        self._held: set[tuple[str, str]] = set()
        #: The newest reading: whom it was for, how many had asked when it began, its publication's number.
        self._newest = ("", 0, 0)
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self.error = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def look(self, hint: str = "") -> int:
        """Reads the refs now and publishes; returns the publication's number. ``hint`` is a model somebody asked about.

        Whoever has to wait meanwhile is served by one reading that begins after it, with all who wait for the same model.
        Raises GitmodelError.
        """
        with self._counting:
            self._asked += 1
            turn = self._asked
        with self._looking:
            model, begun, number = self._newest
            if model == hint and begun >= turn:
                return number
            begun = self._asked
            repo = Repository.open(self._path)
            try:
                found = {
                    name: known
                    for name, known in registry.all_versions(repo, self._held).items()
                    if self._follows(name)
                }
                moves = registry.all_stages(repo, found)
            finally:
                repo.close()
            wanted = {name: self._policy.aspired(name, found[name].releases, stages) for name, stages in moves.items()}
            standing = {
                name: {stage: str(move.version) for stage, move in stages.items() if move.version}
                for name, stages in moves.items()
            }
            released = {
                name: {(str(one.version), one.ref.commit) for one in known.releases} for name, known in found.items()
            }
            number = self._publish(wanted, hint, standing, released)
            self._newest = (hint, begun, number)
            return number

    def tags(self, model: str) -> dict[str, str]:
        """What ``registry.standing`` finds of a model now, whatever its name. Raises GitmodelError."""
        if not is_name(model):
            return {}
        repo = Repository.open(self._path)
        try:
            return registry.standing(repo, model)
        finally:
            repo.close()

    def missing(self, named: Collection[str] = ()) -> list[str]:
        """What it was told to serve and is not there, in words; ``named`` are models that something else was said of."""
        repo = Repository.open(self._path)
        try:
            everything = registry.all_versions(repo)
            found = {name: held for name, held in everything.items() if self._follows(name)}
            lacking = {*self._models, *named} - everything.keys()
            told = [f"there is no version of '{name}' here yet" for name in sorted(lacking)]
            if not found and not self._models:
                return ["there is no version of any model here yet"]
            releases = [release for known in found.values() for release in known.releases]
            held = {text for release in releases for text in (str(release.version), release.ref.commit)}
            stages = {stage for standing in registry.all_stages(repo, found).values() for stage in standing}
        finally:
            repo.close()
        unknown = [*self._policy.lacking(held, stages)] if found else []
        return told + [f"there is no {text} of {', '.join(sorted(found))} here yet" for text in unknown]

    def _follows(self, name: str) -> bool:
        return not self._models or name in self._models

    def _run(self) -> None:
        while not self._stop.wait(self._poll):
            try:
                self.look()
                self.error = ""
            except Exception as error:  # a repository in the middle of surgery must not end the server
                self.error = str(error)
