"""Reads refs and publishes the whole set of aspired versions: on a hint, and slowly by itself. Never meets the manager."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from gitmodel import registry
from gitmodel.git import Repository
from gitmodel.serving.policy import AspiredVersion, VersionPolicy

#: Takes model -> aspired versions, and the model somebody asked about; returns a number that grows with each publication.
Publish = Callable[[Mapping[str, tuple[AspiredVersion, ...]], str], int]


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
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self.error = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def look(self, hint: str = "") -> int:
        """Reads the refs now and publishes; returns the publication's number. ``hint`` is a model somebody asked about.

        Raises GitmodelError.
        """
        with self._looking:
            repo = Repository.open(self._path)
            try:
                wanted = {name: self._aspired(repo, name) for name in self._names(repo)}
            finally:
                repo.close()
            return self._publish(wanted, hint)

    def missing(self) -> list[str]:
        """Models it was told to serve that have no release."""
        repo = Repository.open(self._path)
        try:
            return sorted(self._models - set(self._names(repo)))
        finally:
            repo.close()

    def _names(self, repo: Repository) -> list[str]:
        return sorted(name for name in registry.all_releases(repo) if not self._models or name in self._models)

    def _aspired(self, repo: Repository, name: str) -> tuple[AspiredVersion, ...]:
        return self._policy.aspired(name, registry.releases(repo, name), registry.stages(repo, name))

    def _run(self) -> None:
        while not self._stop.wait(self._poll):
            try:
                self.look()
                self.error = ""
            except Exception as error:  # a repository in the middle of surgery must not end the server
                self.error = str(error)
