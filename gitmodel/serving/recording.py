"""Answered requests, kept as files that ``golden add --from-traffic`` reads. A queue that drops stands between: a request is
never slowed by a disk, nor failed by one that is full."""

from __future__ import annotations

import errno
import itertools
import os
import queue
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.files import write_all
from gitmodel.formats import golden_files
from gitmodel.serving.batching import Batcher
from gitmodel.serving.dataplane import Dataplane
from gitmodel.serving.servable import Servable, Serving, VersionStatus

if TYPE_CHECKING:
    import numpy as np

#: How many answers may wait to be written; one of more bytes than this is no golden case, and is not kept.
WAITING, MAX_BYTES = 64, 1 << 20
_SET = re.compile(r"test_data_set_([0-9]{1,9})")
_WAIT = 5.0


class CannotRecord(GitmodelError):
    """The folder for recorded requests cannot be written."""

    code = "cannot-record"
    exit_code = ExitCode.INCOMPLETE


class Answered(Struct, frozen=True):
    """One call and its answer, tensors by name; ``path`` is MODEL/VERSION, below the folder of the record."""

    path: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


def prepare(folder: Path) -> None:
    """Makes the folder, and clears it of what a server that was killed left half written: nobody may be recording there. Raises
    CannotRecord."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=".probe-", dir=folder)).rmdir()
    except OSError as error:
        raise CannotRecord(
            f"cannot record in {folder} ({error.strerror or error})", hint="name another folder with --record"
        ) from error
    for left_over in folder.glob("*/*/.set-*"):
        shutil.rmtree(left_over, ignore_errors=True)


class Recorder:
    """Writes every ``every``-th answer as ``folder/MODEL/VERSION/test_data_set_N`` (ONNX's layout), until there are ``limit``
    of a model's version. Each appears whole, by one rename; only this user can read them. Other processes may write there, too.

    ``offer`` may be called from any thread and does nothing but count and hand over; ``warned`` is told once when
    writing fails, after which nothing is recorded any more.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int = 1,
        limit: int = 256,
        warned: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder, self._every, self._limit, self._warned = folder, every, limit, warned
        self._seen = itertools.count()
        self._full: set[str] = set()
        self._next: dict[str, tuple[int, int]] = {}
        self._waiting: queue.Queue[Answered | None] = queue.Queue(WAITING)
        self.written = self.dropped = 0
        self.failed = ""
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def offer(self, servable: Servable, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Hands over an answer to be written, or drops it. Never waits, never raises."""
        if self.failed or next(self._seen) % self._every:
            return
        path = f"{servable.model}/{servable.version}"
        if path in self._full or not _fits(inputs, outputs):
            return
        try:
            self._waiting.put_nowait(Answered(path, inputs, outputs))
        except queue.Full:
            self.dropped += 1

    def stop(self) -> None:
        """Writes what is waiting, for a moment at most."""
        try:
            self._waiting.put(None, timeout=_WAIT)
        except queue.Full:
            return
        self._thread.join(_WAIT)

    def _run(self) -> None:
        while (answered := self._waiting.get()) is not None:
            if self.failed or answered.path in self._full:
                continue
            try:
                self._write(answered)
            except Exception as error:  # a recorder's accident must not be the server's
                self.failed = f"recording stopped: {getattr(error, 'strerror', None) or error}"
                self._warned(self.failed)

    def _write(self, answered: Answered) -> None:
        folder = self._folder / answered.path
        for one in (folder.parent, folder):
            one.mkdir(mode=0o700, exist_ok=True)
        there, number = self._next.get(answered.path) or _there(folder)
        if there >= self._limit:
            self._full.add(answered.path)
            return
        sides = (("input", answered.inputs), ("output", answered.outputs))
        files = [item for side, tensors in sides for item in golden_files.side_files("", side, tensors).items()]
        building = Path(tempfile.mkdtemp(prefix=".set-", dir=folder))
        try:
            for name, data in files:
                descriptor = os.open(building / name.lstrip("/"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    write_all(descriptor, data)
                finally:
                    os.close(descriptor)
            while not _moved(building, folder / f"test_data_set_{number}"):
                there, number = _there(folder)
                if there >= self._limit:
                    shutil.rmtree(building)
                    self._full.add(answered.path)
                    return
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        self.written += 1
        self._next[answered.path] = (there + 1, number + 1)
        if there + 1 >= self._limit:
            self._full.add(answered.path)


def _moved(building: Path, target: Path) -> bool:
    """False when another process has a set of that name."""
    try:
        building.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _there(folder: Path) -> tuple[int, int]:
    """How many requests are recorded in a folder, and the number of the next."""
    numbers = [int(found[1]) for path in folder.iterdir() if (found := _SET.fullmatch(path.name))]
    return len(numbers), max(numbers, default=-1) + 1


def _fits(*sides: Mapping[str, np.ndarray]) -> bool:
    """Whether both sides are tensors, and small enough to be a case."""
    tensors = [value for side in sides for value in side.values()]
    return all(hasattr(t, "nbytes") for t in tensors) and sum(map(_bytes, tensors)) <= MAX_BYTES


def _bytes(tensor: np.ndarray) -> int:
    return sum(map(len, tensor.flat)) if tensor.dtype.kind == "O" else tensor.nbytes


class RecordingDataplane(Dataplane):
    """A dataplane whose answers are offered to a recorder; without one the plain dataplane is used, as it is."""

    def __init__(
        self,
        recorder: Recorder,
        table: Callable[[], Mapping[str, Serving]],
        statuses: Callable[[str], list[VersionStatus]],
        batcher: Batcher | None = None,
        standing: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
    ) -> None:
        super().__init__(table, statuses, batcher, standing)
        self._recorder = recorder

    def run(
        self, servable: Servable, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        answer = super().run(servable, inputs, outputs)
        self._recorder.offer(servable, inputs, answer)
        return answer
