"""``list``, ``log``, ``show``: what the registry holds, read from Git alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gitmodel import registry
from gitmodel.bundle.bundle import GOLDEN, Bundle, unreadable
from gitmodel.formats import golden_files
from gitmodel.git import NotARepository, Repository, last_changed
from gitmodel.versions import check_name
from gitmodel.workflows.unreleased import Present


class Row(Struct, frozen=True):
    """One model: its latest version, where its stages stand, the size of its weights in bytes and when it changed."""

    name: str
    latest: str
    stages: Mapping[str, str]
    size: int | None
    date: datetime | None
    unreleased: bool


class LogEntry(Struct, frozen=True):
    """One version. ``verdict`` and ``changed`` come from the tag and the two locks; ``stored`` in bytes is what it added.
    ``changed`` is '' when a shallow clone does not have the version before. ``digest`` is '' of one that does not say what its
    weights are, and ``changed`` why."""

    version: str
    date: datetime
    author: str
    verdict: str
    digest: str
    size: int
    stored: int
    changed: str
    stages: tuple[str, ...]
    annotated: bool


def list_models(repo: Path | str = ".") -> list[Row]:
    """Every model of the working tree (the last commit, in a bare repository), by name."""
    repository = Repository.open(Path(repo))
    bundles, given = registry.current(repository), registry.all_versions(repository)
    known = {bundle.name: given.get(bundle.name, registry.Versions()) for bundle in bundles}
    stages, present = registry.all_stages(repository, known), Present(repository)
    changed = last_changed(repository, registry.MODELS) if repository.head() else {}
    return [_row(b, known[b.name].latest, stages[b.name], changed.get(b.name), present) for b in bundles]


def log(name: str, repo: Path | str = ".") -> list[LogEntry]:
    """The versions of a model, newest first. Raises UnknownModel when there is no such model nor version."""
    check_name(name)
    repository = Repository.open(Path(repo))
    releases = registry.versions(repository, name).releases
    if not releases:
        registry.working_bundle(repository, name)
    stages: dict[str, list[str]] = {}
    for stage, move in registry.stages(repository, name, releases).items():
        stages.setdefault(str(move.version), []).append(stage)
    entries, before = [], None
    for release in releases:
        bundle = registry.bundle_at(repository, name, release.ref.commit, str(release.tag))
        trailers = read_trailers(repository.tag_message(release.ref.name)) if release.ref.annotated else {}
        entry = _entry(release, bundle, before, trailers, tuple(stages.get(str(release.version), ())))
        # In a shallow clone nobody knows what came before the oldest that is here.
        entries.append(replace(entry, changed="") if before is None and repository.shallow else entry)
        before = bundle if entry.digest else before
    return entries[::-1]


def left_out(repo: Path | str = ".") -> str:
    """What ``list`` and ``log`` cannot know here, in words; '' where they know all."""
    return registry.left_out(Repository.open(Path(repo)))


def show(reference: str, repo: Path | str = ".") -> dict[str, Any]:
    """All that Git says of one bundle."""
    try:
        repository: Repository | None = Repository.open(Path(repo))
    except NotARepository:
        repository = None
    bundle = registry.resolve(repository, reference)
    body: dict[str, Any] = {
        "reference": bundle.label,
        "commit": bundle.commit or None,
        "name": bundle.card.name,
        "description": bundle.card.description,
        "format": bundle.card.format,
        "framework": bundle.card.framework,
        "licence": bundle.card.licence,
        "signature": bundle.card.signature,
        "signatures": {name: s.to_dict() for name, s in bundle.signatures.by_name.items()},
    }
    if bundle.file is not None:
        return body
    lock = bundle.lock
    return body | {
        "params": bundle.params,
        "metrics": bundle.metrics,
        "labels": bundle.labels,
        "golden_cases": len(golden_files.places(bundle.folder, GOLDEN)),
        "weights": {
            "digest": f"sha256:{lock.digest}",
            "tensors": len(lock.tensors),
            "files": len(lock.files),
            "bytes": lock.size,
        },
    }


def read_trailers(message: str) -> dict[str, str]:
    """The ``Key: value`` lines of the last paragraph of a tag's message."""
    last = message.strip().split("\n\n")[-1]
    pairs = (line.partition(": ") for line in last.splitlines())
    return {key: value for key, mark, value in pairs if mark}


def _row(
    bundle: Bundle,
    newest: registry.Release | None,
    stages: Mapping[str, registry.StageMove],
    changed: datetime | None,
    present: Present,
) -> Row:
    return Row(
        bundle.name,
        str(newest.version) if newest else "",
        {stage: str(move.version or "?") for stage, move in stages.items()},
        bundle.lock.size if bundle.folder.read("weights.lock") is not None else None,
        changed,
        newest is None or present.differs(bundle.name, newest.ref.commit),
    )


def _entry(
    release: registry.Release,
    bundle: Bundle,
    before: Bundle | None,
    trailers: Mapping[str, str],
    stages: tuple[str, ...],
) -> LogEntry:
    said = (str(release.version), release.ref.date, release.ref.author, _verdict(trailers))
    if why := unreadable(bundle):
        return LogEntry(*said, "", 0, 0, why, stages, release.ref.annotated)
    known = {entry.md5 for entry in before.lock.files} if before else set()
    stored = sum(entry.size for entry in bundle.lock.files if entry.md5 not in known)
    changed = _changed(bundle, before)
    return LogEntry(*said, bundle.lock.digest, bundle.lock.size, stored, changed, stages, release.ref.annotated)


def _verdict(trailers: Mapping[str, str]) -> str:
    """What the gate said when the tag was made: ``compatible, minor``."""
    bump = trailers.get("Required-Bump", "")
    return ", ".join(part for part in (trailers.get("Verdict", ""), bump if bump != "none" else "") if part)


def _changed(bundle: Bundle, before: Bundle | None) -> str:
    if before is None:
        return "first version"
    old = {(t.name, t.sha256) for t in before.lock.tensors}
    moved = sum((t.name, t.sha256) not in old for t in bundle.lock.tensors)
    parts = [f"{moved} of {len(bundle.lock.tensors)} tensors"] if moved else []
    for what in ("signatures", "params", "metrics", "labels"):
        if getattr(bundle, what) != getattr(before, what):
            parts.append(what.removesuffix("s") if what == "signatures" else what)
    return ", ".join(parts) or "nothing that counts"
