"""Pairs of the rules about policy: allow-list, consumers, the card's own terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gitmodel.compat import rules
from gitmodel.compat.allow import AllowList, Entry
from gitmodel.compat.changes import Change
from tests import support
from tests.compat.pairs import NAME, pair, repository, save, scaled, tag

RENAMED = "(float[batch,4] image) => (float[batch,4] y) <float scale = {1.0}> { y = Mul(image, scale) }"
#: The break from ``scaled("1.0")`` to ``RENAMED``.
BREAK = rules.judge(Change("input-renamed", "inputs.x", "x", "image", {"name": "x"}))


def entry(**options: str) -> str:
    """An allow-list whose one entry is for that break."""
    made = Entry.from_dict(
        {
            "rule": BREAK.rule,
            "at": BREAK.at,
            "fingerprint": BREAK.fingerprint,
            "reason": "the one client moves along",
            **options,
        },
        "test",
    )
    return AllowList((made,)).to_yaml()


def write(folder: Path, files: Mapping[str, str | None], message: str = "") -> None:
    """Writes files (None removes one), and commits them with a message."""
    for name, text in files.items():
        path = folder / name
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if message:
        support.git(folder, "add", "--all", "--", *files)
        support.git(folder, "commit", "-qm", message)


ALLOW, CARD = f"models/{NAME}/allow.yaml", f"models/{NAME}/model.yaml"


def _released(folder: Path, files: Mapping[str, str], name: str = "v1.0.0") -> str:
    """A version of ``scaled("1.0")`` that has these files, too."""
    repository(folder)
    save(folder, scaled("1.0"))
    write(folder, files, "Policy")
    return tag(folder, f"{NAME}@{name}")


@pair
def allow_expired(folder: Path) -> tuple[str, str]:
    old = _released(folder, {ALLOW: entry(expires="2020-01-31")})
    save(folder, RENAMED)
    return old, NAME


@pair
def allow_unmatched(folder: Path) -> tuple[str, str]:
    old = _released(folder, {ALLOW: entry()})
    save(folder, scaled("1.0625"))
    return old, NAME


@pair
def allowlist_changed(folder: Path) -> tuple[str, str]:
    old = _released(folder, {})
    save(folder, RENAMED)
    write(folder, {ALLOW: entry()})
    return old, NAME


@pair
def policy_changed(folder: Path) -> tuple[str, str]:
    old = _released(folder, {})
    save(folder, scaled("1.0625"))
    write(folder, {CARD: (folder / CARD).read_text() + "consumers_complete: true\n"})
    return old, NAME


@pair
def consumers_changed(folder: Path) -> tuple[str, str]:
    old = _released(folder, {f"models/{NAME}/consumers/shop.yaml": "name: shop\n"})
    save(folder, RENAMED)
    write(folder, {f"models/{NAME}/consumers/shop.yaml": None})
    return old, NAME


@pair
def consumer_mismatch(folder: Path) -> tuple[str, str]:
    old = _released(folder, {f"consumers/{NAME}.yaml": f"name: shop\nmodel: {NAME}\ninputs: [pixels]\n"})
    save(folder, scaled("1.0625"))
    return old, NAME
