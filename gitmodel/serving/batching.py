"""Calls that wait for each other are answered together, where a model pays for rows next to nothing once its weights are read.

Nobody waits for company: a call that finds its model idle runs at once, and those that come meanwhile make the next batch. With
``wait`` a batch that is not full stays open for a moment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from gitmodel.runtime import RunFailed
from gitmodel.serving.servable import Servable

if TYPE_CHECKING:
    import numpy as np

Arrays = Mapping[str, "np.ndarray"]
#: Runs one call of a servable. Raises RunFailed.
Run = Callable[[Arrays, Sequence[str] | None], "dict[str, np.ndarray]"]

#: Kinds of calls, of one servable, that may wait at a time: shapes are the callers' choice.
_MOST_LINES = 64


class _Call:
    """A call that waits: for its answer, or for its turn to answer a batch."""

    __slots__ = ("answer", "error", "inputs", "leads", "rows", "turn")

    def __init__(self, inputs: Arrays, rows: int) -> None:
        self.inputs, self.rows = inputs, rows
        self.answer: dict[str, np.ndarray] | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.turn = threading.Event()


class _Line:
    """Calls of one servable that may go together: of the same outputs, types and shapes but for the rows."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: deque[_Call] = deque()
        self.busy = False


class Batcher:
    """As many rows as the servable's ``batch_rows`` go together at most, and a batch that is not full waits ``wait`` seconds for
    more. Called from the threads that answer calls, each of which waits here until its own is answered."""

    def __init__(self, wait: float = 0.0) -> None:
        self._wait = wait
        self._lines: WeakKeyDictionary[Servable, dict[Any, _Line]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def run(self, servable: Servable, inputs: Arrays, outputs: Sequence[str] | None, run: Run) -> dict[str, np.ndarray]:
        """What ``run`` gives for these inputs, run with those of other callers. Raises RunFailed."""
        rows = len(next(iter(inputs.values())))
        if not 0 < rows < servable.batch_rows or any(len(value) != rows for value in inputs.values()):
            return run(inputs, outputs)
        line, call = self._line(servable, inputs, outputs), _Call(inputs, rows)
        with line.changed:
            line.waiting.append(call)
            line.changed.notify_all()
            call.leads, line.busy = not line.busy, True
        if not call.leads:
            call.turn.wait()
        if call.leads:
            self._lead(line, servable.batch_rows, outputs, run)
        if call.error is not None:
            raise call.error
        if call.answer is None:
            raise RunFailed("the batch gave no answer")
        return call.answer

    def _line(self, servable: Servable, inputs: Arrays, outputs: Sequence[str] | None) -> _Line:
        shapes = tuple((name, value.dtype.str, value.shape[1:]) for name, value in sorted(inputs.items()))
        key = (shapes, tuple(outputs) if outputs else None)
        with self._lock:
            lines = self._lines.setdefault(servable, {})
            if key not in lines:
                if len(lines) >= _MOST_LINES:  # who holds one that goes here finishes with it
                    self._lines[servable] = lines = {k: held for k, held in lines.items() if held.busy}
                lines[key] = _Line()
            return lines[key]

    def _lead(self, line: _Line, most: int, outputs: Sequence[str] | None, run: Run) -> None:
        """Answers one batch, its own call among it, and hands over to whoever waits longest."""
        batch = self._gather(line, most)
        try:
            _answer(batch, outputs, run)
        finally:
            with line.changed:
                following = line.waiting[0] if line.waiting else None
                line.busy = following is not None
            for call in batch:
                call.turn.set()
            if following is not None:
                following.leads = True
                following.turn.set()

    def _gather(self, line: _Line, most: int) -> list[_Call]:
        until = time.monotonic() + self._wait
        with line.changed:
            while sum(call.rows for call in line.waiting) < most and (left := until - time.monotonic()) > 0:
                line.changed.wait(left)
            batch = [line.waiting.popleft()]
            total = batch[0].rows
            while line.waiting and total + line.waiting[0].rows <= most:
                batch.append(line.waiting.popleft())
                total += batch[-1].rows
        return batch


def _answer(batch: Sequence[_Call], outputs: Sequence[str] | None, run: Run) -> None:
    if len(batch) > 1:
        try:
            _answer_together(batch, outputs, run)
        except RunFailed:  # one of them may be to blame: each for itself
            pass
        else:
            return
    for call in batch:
        try:
            call.answer = run(call.inputs, outputs)
        except BaseException as error:  # it is the caller's, who raises it
            call.error = error


def _answer_together(batch: Sequence[_Call], outputs: Sequence[str] | None, run: Run) -> None:
    """Raises RunFailed, also for a model that gives back other rows than it was given."""
    import numpy as np

    joined = {name: np.concatenate([call.inputs[name] for call in batch]) for name in batch[0].inputs}
    answer = run(joined, outputs)
    total = sum(call.rows for call in batch)
    if not all(getattr(value, "shape", ())[:1] == (total,) for value in answer.values()):
        raise RunFailed("the outputs have other rows than the inputs")
    start = 0
    for call in batch:
        call.answer = {name: value[start : start + call.rows] for name, value in answer.items()}
        start += call.rows
