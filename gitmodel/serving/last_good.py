"""What served last, kept on disk: a restarted server finds its way back when the newest version will not load."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from gitmodel.errors import GitmodelError
from gitmodel.files import replace_file
from gitmodel.serving.policy import AspiredVersion


class LastGood:
    """One version per model. Without a path it remembers nothing; a damaged file is as good as none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._versions: dict[str, AspiredVersion] = {}
        if path is None:
            return
        try:
            rows = json.loads(path.read_text())
            self._versions = {row["model"]: AspiredVersion(**row) for row in rows}
        except (OSError, ValueError, TypeError, KeyError):
            self._versions = {}

    def get(self, model: str) -> AspiredVersion | None:
        return self._versions.get(model)

    def put(self, version: AspiredVersion) -> None:
        if self._path is None or self._versions.get(version.model) == version:
            return
        self._versions[version.model] = version
        rows = [{key: value for key, value in asdict(v).items() if key != "stages"} for v in self._versions.values()]
        try:
            replace_file(self._path, json.dumps(rows).encode())
        except GitmodelError:
            return  # a full disk must not stop what already serves
