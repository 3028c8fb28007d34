"""The commands that are struck, each with the place it starts from, and how an undisturbed run of it ends."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kill_points import order, points, tracing
from kill_points.invariants import State
from kill_points.place import BIN, Broken, Place
from kill_points.points import Point

_SAVE = (
    "save",
    "fraud",
    "../files/two.onnx",
    "--golden",
    "../files/cases.npz",
    "--params",
    "../files/two.yaml",
    "-m",
    "Two",
)


_LONG_AGO = 1_600_000_000
GC = ("gc", "--last", "1", "--younger-than", "0", "--yes")
_WIDTHS = (128, 160, 256, 256, 200, 160, 128)


@dataclass(frozen=True)
class Command:
    """``args`` are gitmodel's; ``start`` names the place to start from; ``forgets`` says that bytes are to go."""

    name: str
    start: str
    args: tuple[str, ...]
    forgets: bool = False

    @property
    def argv(self) -> list[str]:
        return [str(BIN / "gitmodel"), *self.args]

    @property
    def shown(self) -> str:
        return f"gitmodel {' '.join(self.args)}".replace("../files/", "")


COMMANDS = (
    Command("save", "released", _SAVE),
    Command("save-release", "released", (*_SAVE, "--release", "auto")),
    Command("release", "saved", ("release", "fraud")),
    Command("release-push", "saved", ("release", "fraud", "--push", "origin")),
    Command("push", "tagged", ("push",)),
    Command("pull", "cloned", ("pull",)),
    Command("checkout", "pulled", ("checkout", "fraud@v1.0.0")),
    Command("gc", "littered", GC, forgets=True),
    Command("gc-remote", "littered", (*GC, "--remote", "--alone"), forgets=True),
)


@dataclass(frozen=True)
class Stage:
    """A command with its starting place (never run in, only copied), and the states before and after it.

    ``own`` and ``git`` are the points of gitmodel's own calls and of each Git it starts.
    """

    command: Command
    template: Place
    before: State
    after: State
    own: dict[str, list[Point]] = field(default_factory=dict)
    git: tuple[dict[str, list[Point]], ...] = ()
    #: KiB that an undisturbed run adds to the disk.
    grows: int = 0
    #: Seconds that it takes, untraced.
    lasts: float = 0.0
    #: What a power cut could lose.
    disorder: tuple[str, ...] = ()
    #: The exit codes of ``gitmodel fsck`` before and after.
    sound: tuple[int, int] = (0, 0)

    def points(self, step: int) -> list[Point]:
        """Every ``step``th, those of a full disk aside."""
        return [*points.choose(self.own, self.git, step), *points.moments(self.command.name, self.lasts, step)]


def prepare(root: Path, wanted: Collection[str]) -> dict[str, Place]:
    """Builds the starting places of these names below ``root`` with gitmodel's own commands. Raises Broken."""
    made: dict[str, Place] = {}

    def make(name: str) -> Place:
        if name not in made:
            start, step = _PLACES[name]
            place = make(start).copy(root / name) if start else Place.new(root / name)
            step(place)
            made[name] = place
        return made[name]

    return {name: make(name) for name in wanted}


def rehearse(command: Command, template: Place, root: Path) -> Stage:
    """Runs a command undisturbed, twice, to count its calls and Git's, and to know how it ends. Raises Broken."""
    before = State.of(template)
    first, second = (template.copy(root / f"{command.name}-{kind}") for kind in ("own", "git"))
    _undisturbed(command, first, points.count_own)
    _undisturbed(command, second, points.count_git)
    after = State.of(first)
    if differs := list(after.differences(State.of(second))):
        raise Broken(f"two undisturbed runs of '{command.shown}' end differently: {'; '.join(differs)}")
    starts = sorted(int(log.suffix[1:]) for log in second.logs.glob("git.*"))
    stage = Stage(
        command,
        template,
        before,
        after,
        points.found(command.name, first, first.logs / "own"),
        tuple(points.found(command.name, second, second.logs / f"git.{n}", points.GIT, n) for n in starts),
        grows=max(0, _used(first) - _used(template)),
        disorder=tuple(order.violations(tracing.read_log(first.logs / "own"), first.root)),
        lasts=_lasts(command, template, root / f"{command.name}-timed"),
        sound=(_sound(template, root / f"{command.name}-before"), first.gitmodel("fsck").code),
    )
    first.remove()
    second.remove()
    return stage


def _lasts(command: Command, template: Place, scratch: Path) -> float:
    place = template.copy(scratch)
    start = time.monotonic()
    place.run(command.argv)
    lasts = time.monotonic() - start
    place.remove()
    return lasts


def _sound(template: Place, scratch: Path) -> int:
    place = template.copy(scratch)
    done = place.gitmodel("fsck")
    place.remove()
    return done.code


def _undisturbed(command: Command, place: Place, count: Callable[[Place, Sequence[str]], list[str]]) -> None:
    done = place.run(count(place, command.argv))
    (place.root / "bin" / "git").unlink(missing_ok=True)
    if done.code:
        raise Broken(f"'{command.shown}' failed undisturbed ({done.code}): {done.said}")


def _released(place: Place) -> None:
    """v1.0.0, on the stage prod and pushed; ``two.onnx``, of which half the tensors differ, waits to be saved."""
    _write_files(place.files)
    place.must("git", "init", "-q", "--bare", str(place.origin), cwd=place.root)
    place.must("git", "init", "-q", str(place.repo), cwd=place.root)
    place.git("remote", "add", "origin", "../origin.git")
    _ok(place, "init", "--remote", "../storage")
    place.git("commit", "-q", "-m", "Set up")
    first = ("save", "fraud", "../files/one.onnx", "--golden", "../files/cases.npz", "--params", "../files/one.yaml")
    _ok(place, *first, "-m", "One", "--release", "auto")
    _ok(place, "promote", "fraud@v1.0.0", "prod")
    _ok(place, "push")
    place.git("push", "-q", "origin", "main", "--tags")


def _littered(place: Place) -> None:
    """The second version is in the cache alone; three more states were committed and their weights pushed, never released;
    a save was killed long ago."""
    for number in range(3):
        model = place.files / f"state{number}.onnx"
        write_model(model, 1.1 + number / 10)
        _ok(place, "save", "fraud", str(model), "-m", f"State {number}")
        _ok(place, "push", "fraud")
    stale = place.cache / "files" / "md5" / "tmp-gitmodel-stale"
    stale.write_bytes(b"half an object")
    for path in place.root.rglob("files/md5/**/*"):
        os.utime(path, (_LONG_AGO, _LONG_AGO))


def _cloned(place: Place) -> None:
    """Both versions are pushed; the repository is a fresh clone, its cache empty."""
    _ok(place, "push")
    place.git("push", "-q", "origin", "main", "--tags")
    place.repo.rename(place.root / "author")
    place.must("git", "clone", "-q", str(place.origin), str(place.repo), cwd=place.root)
    place.git("remote", "set-url", "origin", "../origin.git")
    Place(place.root / "author").remove()


def _ok(place: Place, *args: str) -> None:
    place.must(str(BIN / "gitmodel"), *args)


def _used(place: Place) -> int:
    """KiB that the files of a place take, in whole blocks."""
    sizes = [path.lstat().st_size for path in place.root.rglob("*") if path.relative_to(place.root).parts[0] != "logs"]
    return sum(-(-size // 4096) * 4 for size in sizes)


def write_model(path: Path, scale: float = 1.0) -> None:
    """Six layers of 64 to 256 KiB, each with a small bias; ``scale`` changes the values of three of them."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    weights, nodes, flow = [], [], "x"
    for layer, (rows, columns) in enumerate(itertools.pairwise(_WIDTHS)):
        values = random.normal(size=(rows, columns)) / rows * (scale if layer % 2 else 1.0)
        bias = random.normal(size=columns)
        for kind, value in (("weight", values), ("bias", bias)):
            weights.append(numpy_helper.from_array(value.astype("float32"), f"layer{layer}/{kind}"))
        nodes.append(helper.make_node("MatMul", [flow, f"layer{layer}/weight"], [f"m{layer}"]))
        nodes.append(helper.make_node("Add", [f"m{layer}", f"layer{layer}/bias"], [f"h{layer}"]))
        flow = f"h{layer}"
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", _WIDTHS[0]])
    gives = helper.make_tensor_value_info(flow, onnx.TensorProto.FLOAT, ["batch", _WIDTHS[-1]])
    graph = helper.make_graph(nodes, "graph", [given], [gives], weights)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    path.write_bytes(model.SerializeToString())


def _write_files(folder: Path) -> None:
    import numpy as np

    for name, scale in (("one", 1.0), ("two", 1.0001)):
        write_model(folder / f"{name}.onnx", scale)
        (folder / f"{name}.yaml").write_text(f"scale: {scale}\n")
    np.savez(folder / "cases.npz", x=np.random.default_rng(1).normal(size=(2, _WIDTHS[0])).astype("float32"))


#: Each starting place: the one it goes on from, and what is done there.
_PLACES: dict[str, tuple[str, Callable[[Place], None]]] = {
    "released": ("", _released),
    "saved": ("released", lambda place: _ok(place, *_SAVE)),
    "tagged": ("saved", lambda place: _ok(place, "release", "fraud")),
    "littered": ("tagged", _littered),
    "cloned": ("tagged", _cloned),
    "pulled": ("cloned", lambda place: _ok(place, "pull")),
}
