"""Whether release tags still stand on what they were made for: their own words against the bundle they point at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from gitmodel.bundle.bundle import Bundle
from gitmodel.compat.changes import Change
from gitmodel.git import GitFailed, Repository
from gitmodel.versions import ReleaseTag, parse_tag
from gitmodel.workflows.listing import read_trailers


def mutated(repo: Repository, bundles: Iterable[Bundle]) -> Iterator[Change]:
    """Facts about bundles that are named by a release tag. A lightweight tag, or one made by hand, says nothing."""
    for bundle in bundles:
        tag = parse_tag(bundle.label) if bundle.commit else None
        if isinstance(tag, ReleaseTag) and (what := _mutation(tag, bundle, _trailers(repo, bundle.label))):
            yield Change("tag-content-mutated", bundle.label, None, None, {"label": bundle.label, "what": what})


def _trailers(repo: Repository, name: str) -> dict[str, str]:
    data = b""
    with contextlib.suppress(GitFailed):
        data = repo.read(f"refs/tags/{name}", "tag")
    message = data.decode(errors="replace").partition("\n\n")[2]
    # A signature is a paragraph of its own, or several.
    return read_trailers(message.partition("-----BEGIN ")[0])


def _mutation(tag: ReleaseTag, bundle: Bundle, said: dict[str, str]) -> str:
    model, version = said.get("Model", tag.model), said.get("Version", str(tag.version))
    if (model, version) != (tag.model, str(tag.version)):
        return f"its message is that of {model}@{version}"
    made_for, is_on = said.get("Weights", ""), f"sha256:{bundle.lock.digest}"
    if made_for and made_for != is_on:
        return f"it was made for weights {made_for[:19]} and stands on {is_on[:19]}"
    return ""
