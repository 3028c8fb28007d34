"""How the repository is set up: hooks, Git's settings, files that keep weights out of Git, signing."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gitmodel import endpoint, formats, hooks, registry, resources
from gitmodel.bundle.bundle import ASSETS, GOLDEN, LOCK, WEIGHTS
from gitmodel.compat.rules import plain
from gitmodel.doctor.ailment import Ailment, Patient, counted
from gitmodel.git import GitFailed
from gitmodel.storage import pointer
from gitmodel.workflows.init import init

_PYTHON = re.compile(r"^python='(.+)'$", re.MULTILINE)
#: Bytes from which a file in Git is a burden.
_LARGE = 1 << 20
#: What ``ignored`` tells of, and what is kept in Git on purpose.
_OURS = re.compile(rf"{registry.MODELS}/[^/]+/({WEIGHTS}|{ASSETS}|{GOLDEN})/")
#: Settings of a repository that is pushed to and serves, and what each prevents.
_RECEIVE = {
    "receive.denyDeletes": "a push may delete released versions",
    "receive.denyNonFastForwards": "a push may take commits away that versions stand on",
}


def shims(patient: Patient) -> Iterator[Ailment]:
    """Hooks that are not there, not called, or call what is gone."""
    repo = patient.repo
    install = f"gitmodel hooks install{' --server' if repo.bare else ''}"
    repair = partial(hooks.install, repo.root, server=repo.bare)
    found = hooks.status(repo.root)
    usual = repo.common_dir / "hooks"
    if repo.hooks_dir != usual and any(hooks.is_ours(usual / item.name) for item in found):
        yield Ailment(
            "hooks-bypassed", f"core.hooksPath is {repo.hooks_dir}, so Git does not call the hooks in {usual}",
            f"{install} (into that folder, too), or git config --unset core.hooksPath",
        )  # fmt: skip
    for item in found:
        if item.state == "outdated":
            python = _PYTHON.search(item.path.read_text(errors="replace"))
            gone = bool(python and not os.access(python[1].replace("'\\''", "'"), os.X_OK))
            what = (
                f"starts {python[1]}, which is gone" if gone and python else "is of another gitmodel, or cannot be run"
            )
            yield Ailment("hook-outdated", f"the hook {item.path} {what}", install, advice=not gone, repair=repair)
    if all(item.state == "absent" for item in found):
        who = (
            "who pushes is not told what is served" if repo.bare else "a server here learns of new tags by polling only"
        )
        yield Ailment("hooks-absent", f"no hooks are installed: {who}", install, advice=True)


def serving(patient: Patient) -> Iterator[Ailment]:
    """Settings of a bare repository that production is pushed to."""
    repo = patient.repo
    installed = any(item.state != "absent" for item in hooks.status(repo.root))
    if not repo.bare or not (installed or endpoint.running(repo.state_dir)):
        return
    for key, danger in _RECEIVE.items():
        if not _is_true(patient, key):
            yield Ailment("weak-setting", f"{key} is not set: {danger}", f"git -C {repo.root} config {key} true")
    if not any(os.access(repo.hooks_dir / name, os.X_OK) for name in ("update", "pre-receive")):
        yield Ailment(
            "tags-may-move", "no setting keeps a forced push from moving a release tag, and there is no update hook that does",
            f"put a hook that refuses it at {repo.hooks_dir / 'update'}", advice=True,
        )  # fmt: skip


def ignored(patient: Patient) -> Iterator[Ailment]:
    """Lines that keep weights out of Git and diffs readable, and weights that are in Git all the same."""
    if not patient.initialised:
        return
    repo, root = patient.repo, patient.repo.root
    tracked = repo.run("ls-files", "-z", "--", f":(glob){registry.MODELS}/*/{WEIGHTS}/**").split("\0")[:-1]
    if tracked:
        folder = tracked[0].split(f"/{WEIGHTS}/")[0] + f"/{WEIGHTS}"
        yield Ailment(
            "weights-in-git", f"{counted(len(tracked), 'weight file')} in Git itself, such as {tracked[0]}",
            f"git rm -r --cached {folder} && git commit",
        )  # fmt: skip
    for lock in sorted((root / registry.MODELS).glob(f"*/{LOCK}")):
        folder_ = lock.parent
        if not _ignores(patient, folder_ / WEIGHTS):
            path = (folder_ / ".gitignore").relative_to(root)
            yield Ailment(
                "gitignore-line-missing", f"{path} does not keep {WEIGHTS}/ out of Git", f"echo /{WEIGHTS} >> {path}",
                repair=partial(pointer.ignore, folder_, WEIGHTS),
            )  # fmt: skip
    wanted = [line for line in resources.template("gitattributes").splitlines() if line and not line.startswith("#")]
    attributes = root / ".gitattributes"
    there = attributes.read_text(errors="replace").splitlines() if attributes.is_file() else []
    if missing := [line for line in wanted if line not in there]:
        yield Ailment(
            "gitattributes-line-missing", f".gitattributes lacks {counted(len(missing), 'line')}, such as '{missing[0]}'",
            "gitmodel init, and commit .gitattributes", repair=partial(init, root),
        )  # fmt: skip


def committed(patient: Patient) -> Iterator[Ailment]:
    """Large model files that are in Git itself, where every clone has to bring every version of them."""
    repo = patient.repo
    if not repo.head():
        return
    listing = repo.run("ls-tree", "-r", "-z", "--full-tree", "HEAD")
    entries = (entry.partition("\t")[::2] for entry in filter(None, listing.split("\0")))
    ids = {
        path: described.split()[2]
        for described, path in entries
        if formats.ending(Path(path)) and not _OURS.match(path)
    }
    sizes = repo.sizes(set(ids.values()))
    large = {path: size for path, oid in ids.items() if (size := sizes.get(oid, 0)) >= _LARGE}
    if large:
        path = max(large, key=lambda path: large[path])
        yield Ailment(
            "model-in-git", f"{counted(len(large), 'large model file')} in Git itself, such as {plain(path)} ({large[path] >> 20} MiB)",
            f"gitmodel save NAME {shlex.quote(path)}, then git rm --cached {shlex.quote(path)} && git commit", advice=True,
        )  # fmt: skip


def signing(patient: Patient) -> Iterator[Ailment]:
    """Git makes an unsigned tag, and says it succeeded, when the key cannot be read."""
    repo = patient.repo
    if not any(_is_true(patient, key) for key in ("tag.gpgSign", "tag.forceSignAnnotated")):
        return
    ssh, key = repo.config("gpg.format") == "ssh", repo.config("user.signingKey")
    program = repo.config("gpg.ssh.program") or "ssh-keygen" if ssh else repo.config("gpg.program") or "gpg"
    if shutil.which(program) is None:
        yield Ailment("signing-impossible", f"tags are to be signed, and {program} is not here", f"install {program}")
    elif ssh and not key and not repo.config("gpg.ssh.defaultKeyCommand"):
        yield Ailment(
            "signing-impossible", "tags are to be signed, and no key is named", "git config user.signingKey PATH"
        )
    elif ssh and key and not key.startswith(("key::", "ssh-")) and not Path(key).expanduser().is_file():
        yield Ailment(
            "signing-impossible",
            f"tags are to be signed with {key}, which is not there",
            "git config user.signingKey PATH",
        )


def _is_true(patient: Patient, key: str) -> bool:
    try:
        return patient.repo.run("config", "--type=bool", "--get", key) == "true"
    except GitFailed:
        return False


def _ignores(patient: Patient, path: Path) -> bool:
    try:
        patient.repo.run("check-ignore", "--quiet", "--no-index", "--", f"{path}/{WEIGHTS}.h5")
    except GitFailed:
        return False
    return True
