"""The second stage of a load: the weights in the order that ONNX Runtime computes with, which makes large batches fast.

A version answers within milliseconds from its mapped files. What it takes longer to make ready is made beside that, once per
host, by a child that yields to everything else, and is mapped as well: it costs disk, not memory that is never given back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from weakref import WeakSet

from gitmodel import runtime
from gitmodel.errors import GitmodelError
from gitmodel.serving.priority import stay_behind
from gitmodel.serving.servable import Servable
from gitmodel.storage.digests import Digests

MODEL, WEIGHTS, DIGESTS = "model.onnx", "weights.bin", "sha256.json"
_BUILDING = "building-"
#: Seconds for which packed weights are kept that no server says it needs, as each does whenever it looks at the refs.
_KEPT = 600.0
#: Disk that is left free beside the twofold size of the weights, in bytes.
_SPARE = 1 << 30


@dataclass
class _Build:
    """A child at work for the servable; ``ended`` once it is through, ``failed`` with its last words if it gave up."""

    servable: Servable
    target: Path
    process: subprocess.Popen[bytes]
    ended: bool = False
    failed: str = ""


class Prepacker:
    """Makes and keeps packed weights below ``folder``. ``warned`` is told of what could not be made: the version goes on as it is.
    Used by one thread; ``wake`` is called from another when there is something to take."""

    def __init__(self, folder: Path, *, threads: int = 1, warned: Callable[[str], None] = lambda _: None) -> None:
        self._folder, self._threads, self._warned = folder, threads, warned
        self.wake: Callable[[], None] = lambda: None
        self._digests = Digests(folder / "digests.sqlite")
        self._build: _Build | None = None
        self._done: WeakSet[Servable] = WeakSet()

    def take(self, served: Collection[Servable]) -> None:
        """Gives servables that can do with it a packed session, and begins to make the next. ``served`` are all that answer
        calls without a version: nothing is kept for others. Raises nothing: it is for speed, and whoever calls has more to do."""
        try:
            self._take(served)
        except Exception as error:
            self._warned(f"packing weights: {type(error).__name__}: {error}")

    def _take(self, served: Collection[Servable]) -> None:
        build = self._build
        if build is not None and (build.ended or build.servable not in served):
            self._end(build)
        targets = {one: self._folder / self._key(one) for one in served if one.repack is not None}
        for servable, target in targets.items():
            with contextlib.suppress(
                OSError
            ):  # other servers of this repository see by the time that somebody needs it
                os.utime(target)
            if servable in self._done:
                continue
            if self._is_whole(target):
                self._done.add(servable)
                self._open(servable, target)
            elif self._build is None:
                self._sweep({needed.name for needed in targets.values()})
                self._begin(servable, target)

    def stop(self) -> None:
        if self._build is not None:
            self._end(self._build)

    def _open(self, servable: Servable, target: Path) -> None:
        try:
            if servable.repack is not None:
                servable.repack(servable, target / MODEL)
        except Exception as error:  # whatever a model or the runtime does, the version goes on
            reason = error.message if isinstance(error, GitmodelError) else f"{type(error).__name__}: {error}"
            self._warned(f"{servable.model} {servable.version} stays as it is: {reason}")

    def _begin(self, servable: Servable, target: Path) -> None:
        if servable.path is None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < 2 * servable.size + _SPARE:
                raise OSError("there is not enough room on the disk")
            building = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{os.getpid()}-", dir=self._folder))
            call = f"pack({str(servable.path)!r}, {str(building)!r}, {self._threads}, {os.getpid()})"
            process = subprocess.Popen(
                # Without -P Python would look for modules in the folder the server was started in first.
                [sys.executable, "-P", "-c", f"from {__name__} import pack; {call}"],
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            self._done.add(servable)
            self._warned(f"{servable.model} {servable.version} stays as it is: {error.strerror or error}")
            return
        self._build = _Build(servable, building, process)
        threading.Thread(target=self._await, args=(self._build, target), name="prepack", daemon=True).start()

    def _await(self, build: _Build, target: Path) -> None:
        _, said = build.process.communicate()
        if build.process.returncode == 0:
            try:
                # A model of trees has no weights to speak of, and no file of them.
                digests = {path.name: self._digests.of(path) for path in build.target.iterdir()}
                (build.target / DIGESTS).write_text(json.dumps(digests))
                build.target.rename(target)
            except OSError as error:
                # Another server of this repository may have been as quick.
                build.failed = "" if (target / DIGESTS).exists() else str(error.strerror or error)
        else:
            words = said.decode(errors="replace").strip().splitlines()
            build.failed = words[-1][:300] if words else f"its child ended with {build.process.returncode}"
        build.ended = True
        self.wake()

    def _end(self, build: _Build) -> None:
        self._build = None
        with contextlib.suppress(OSError):
            build.process.kill()
        build.process.wait()
        shutil.rmtree(build.target, ignore_errors=True)
        if build.failed and not self._is_whole(self._folder / self._key(build.servable)):
            self._done.add(build.servable)
            self._warned(f"{build.servable.model} {build.servable.version} stays as it is: {build.failed}")

    def _is_whole(self, target: Path) -> bool:
        try:
            wanted = json.loads((target / DIGESTS).read_text())
            whole = MODEL in wanted and all(
                self._digests.of(target / Path(name).name) == digest for name, digest in wanted.items()
            )
        except (OSError, ValueError, AttributeError, TypeError):
            whole = False
        if not whole:
            shutil.rmtree(target, ignore_errors=True)
        return whole

    def _sweep(self, needed: Collection[str]) -> None:
        """Removes what a killed server left half done, and what no server of this repository has needed for a while."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if not path.is_dir() or path.name in needed:
                    continue
                begun = path.name.startswith(_BUILDING)
                if _is_alone(path.name) if begun else time.time() - path.stat().st_mtime > _KEPT:
                    shutil.rmtree(path, ignore_errors=True)

    def _key(self, servable: Servable) -> str:
        """Packed weights are for these weights, this runtime with these options, and this kind of processor."""
        view = servable.path.name if servable.path else ""  # several graphs may stand over the same weights
        parts = (servable.digest, view, runtime.version(), str(self._threads), platform.machine(), _processor())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]


def _is_alone(name: str) -> bool:
    """Whether whoever makes this folder is gone."""
    owner = name.removeprefix(_BUILDING).partition("-")[0]
    try:
        os.kill(int(owner), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return True
    except OSError:  # it lives, as another user's
        return False
    return False


@cache
def _processor() -> str:
    """What the kernel says the processor can do; '' where it does not say."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:  # noqa: PTH123  # it is no file on a disk
        lines = {line.strip() for line in file if line.startswith(("flags", "Features", "model name"))}
        return "\n".join(sorted(lines))
    return ""


def pack(source: str, target: str, threads: int, parent: int) -> None:
    """The child's: packs the model ``source`` into the folder ``target``, and ends with its parent."""
    from gitmodel.sandbox import jail

    jail.die_with_parent(parent)
    stay_behind()
    runtime.save_prepacked(Path(source), Path(target) / MODEL, WEIGHTS, threads=threads)
