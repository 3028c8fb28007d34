"""When the noise of a comparison is measured, and on what: always where it costs little, else where it could turn a verdict."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from functools import cached_property

from msgspec import Struct

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.compat import noise
from gitmodel.compat.bridge import Bridge
from gitmodel.compat.noise import Noise
from gitmodel.compat.opening import Opened, Running
from gitmodel.compat.replay import Replay, calibrated
from gitmodel.compat.side_by_side import Recalling, Runs
from gitmodel.errors import GitmodelError

#: Bytes of weights up to which running a few cases some thirty times more costs little.
SMALL = 16 << 20
#: The other number of threads is what this machine has, within these.
_FEWEST, _MOST = 2, 8


class Side(Struct, frozen=True, dict=True):
    """A model that runs. ``signature`` is the one it is called by as the model itself has it, whatever signature.yaml says;
    ``whole`` the one of its graph, which golden cases are recorded by; ``size`` in bytes of weights."""

    session: Running
    signature: Signature
    whole: Signature
    size: int

    @property
    def opened(self) -> Opened:
        return self.session.opened

    @cached_property
    def recalled(self) -> Runs:
        """The session, which runs the same inputs once: NEW's own cases are mostly OLD's."""
        return Recalling(self.session)

    @contextlib.contextmanager
    def reopened(self, optimised: bool, threads: int) -> Iterator[Runs]:
        """The session again with other options; the usual one where they are the usual ones."""
        yield self.session if optimised and threads == 1 else self.session.again(optimise=optimised, threads=threads)


def threads() -> int:
    """How many threads stand for many: as many as there are processors, 2 to 8."""
    return max(_FEWEST, min(os.cpu_count() or 1, _MOST))


def settle(
    shown: Replay, before: Side, after: Side, cases: Iterable[GoldenCase], over: Bridge, *, drawn: bool
) -> Replay:
    """The replay with its noise: equal runs of both sides, and OLD's floor, on the cases that differ most."""
    if all(drift.equal for drift in shown.outputs):
        return shown
    small = before.size + after.size <= 2 * SMALL
    if drawn and not small:
        # Drawn cases show whether there is a difference; how much of it is noise is asked of what callers really send.
        return calibrated(shown, Noise("no noise was measured: the model is large, and its cases are drawn"))
    worst = noise.worst_cases(cases, shown.outputs)
    unsteady = [
        *noise.unsteady("OLD", before.session, worst[:1], lambda inputs: inputs),
        *noise.unsteady("NEW", after.session, worst[:1], over.call),
    ]
    if not small and not noise.matters(shown.outputs):
        why = "equal runs compared; no noise floor was measured: the model is large, and none would turn the verdict"
        return calibrated(shown, Noise(why, (), tuple(unsteady)))
    try:
        floors = noise.calibrate(before.reopened, before.session, worst, before.signature, threads())
    except GitmodelError as error:
        return calibrated(shown, Noise(f"no noise floor was measured: {error}", (), tuple(unsteady)))
    why = f"noise floor of OLD measured on {len(worst)} cases over batch, optimisation and threads"
    return calibrated(shown, Noise(why, floors, tuple(unsteady)))
