"""Finds or installs the peers of peers.py and serving.py, each in a folder of its own; nothing outside that folder is written."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from peer_commands import Part

_TIMEOUT = 900.0
_BINS = ("bin", "usr/bin")
#: The line that says why, among the hundred that pip prints when a package does not build.
_TELLING = re.compile(r"(Error|Exception|^E): ")


class Missing(Exception):
    """A peer that could not be installed, and why."""


def installed(part: Part, place: Path, env: Mapping[str, str]) -> Path:
    """The folder of the part's commands: below ``place``, on the PATH if it is a program, or installed below ``place``.

    Raises Missing.
    """
    folder = place / part.name
    found = _bin_of(part, folder)
    if found is None and part.debian and (on_path := shutil.which(part.command, path=env["PATH"])):
        found = Path(on_path).parent
    if found is None:
        _install(part, folder, env)
        found = _bin_of(part, folder)
    if found is None:
        raise Missing(f"{part.name} was installed and has no '{part.command}'")
    return found


def _bin_of(part: Part, folder: Path) -> Path | None:
    return next((folder / name for name in _BINS if (folder / name / part.command).exists()), None)


def _install(part: Part, folder: Path, env: Mapping[str, str]) -> None:
    """All or nothing: what is there is taken to be whole the next time."""
    print(f"installing {part.name}", flush=True)
    folder.mkdir(parents=True)
    try:
        if part.packages:
            _call([part.interpreter, "-m", "venv", str(folder)], folder, env)
            _call([str(folder / "bin/python"), "-m", "pip", "install", "-q", *part.packages], folder, env)
        else:
            _call(["apt-get", "download", "-q", part.debian], folder, env)
            _call(["dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder)], folder, env)
    except BaseException:
        shutil.rmtree(folder)
        raise


def _call(command: list[str], folder: Path, env: Mapping[str, str]) -> None:
    """Raises Missing with the last thing the command said."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = next((line for line in said if _TELLING.search(line)), said[-1] if said else "nothing")
        raise Missing(f"'{command[0].rpartition('/')[2]}' ended with {done.returncode}: {told}")
