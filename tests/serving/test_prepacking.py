"""gitmodel.serving.prepacking: real children pack real weights; what goes wrong with that is told, and serves as before."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from gitmodel import runtime
from gitmodel.bundle.signature import Signature
from gitmodel.formats import onnx as onnx_format
from gitmodel.serving import opening
from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.prepacking import DIGESTS, MODEL, WEIGHTS, Prepacker
from gitmodel.serving.servable import Servable
from gitmodel.serving.validation import GoldenFailed
from tests import support
from tests.serving.production import PATIENCE, Loader, Production

X = np.random.default_rng(0).normal(size=(9, 200)).astype("float32")


class Packing:
    """A prepacker with what it said, driven as the manager does it."""

    def __init__(self, folder: Path) -> None:
        self.warned: list[str] = []
        self.packer = Prepacker(folder, warned=self.warned.append)
        self._woken = threading.Event()
        self.packer.wake = self._woken.set

    def until_done(self, *served: Servable) -> None:
        """Takes until nothing is at work any more."""
        self.packer.take(served)
        while self.packer._build is not None:
            assert self._woken.wait(PATIENCE)
            self._woken.clear()
            self.packer.take(served)


@pytest.fixture
def packing(tmp_path: Path) -> Iterator[Packing]:
    made = Packing(tmp_path / "prepacked")
    yield made
    made.packer.stop()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(support.wide_model(tensors=2, size=200).SerializeToString())
    return path


def servable(path: Path, digest: str = "d" * 64) -> Servable:
    """One that takes any session, served unpacked from ``path``."""
    session = runtime.open_session(path, prepack=False)
    signature: Signature = onnx_format.signature_of(onnx_format.parse(path.read_bytes(), "m"), "m")
    made = Servable("m", "v1.0.0", 1, "c" * 40, digest, "onnx", signature, session, 0.0, 0, 0, path=path, size=1)
    made.repack = lambda one, packed: setattr(one, "session", runtime.open_session(packed))
    return made


def packed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def answer(one: Servable) -> np.ndarray:
    return one.session.run({one.signature.inputs[0].name: X})[one.signature.outputs[0].name]


def never(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a child was started")


def test_weights_are_packed_once_and_kept(packing: Packing, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = servable(model)
    before, mapped = answer(one), one.session
    packing.until_done(one)
    assert one.session is not mapped
    assert np.allclose(answer(one), before, rtol=1e-4, atol=1e-5)
    assert np.array_equal(
        answer(one), runtime.open_session(model).run({one.signature.inputs[0].name: X})[one.signature.outputs[0].name]
    )
    (kept,) = packed(packing.packer._folder)
    assert sorted(path.name for path in kept.iterdir()) == sorted([MODEL, WEIGHTS, DIGESTS])
    assert packing.warned == []
    monkeypatch.setattr(subprocess, "Popen", never)
    packing.packer.take([one])
    again = Packing(packing.packer._folder)  # after a restart
    other = servable(model)
    again.packer.take([other])
    assert np.array_equal(answer(other), answer(one))


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, DIGESTS])
def test_what_is_damaged_is_packed_anew(packing: Packing, model: Path, name: str) -> None:
    packing.until_done(servable(model))
    (kept,) = packed(packing.packer._folder)
    (kept / name).write_bytes(b"rubbish" + (kept / name).read_bytes()[7:])
    again, one = Packing(packing.packer._folder), servable(model)
    mapped = one.session
    again.until_done(one)
    assert one.session is not mapped
    assert np.allclose(answer(one), answer(servable(model)), rtol=1e-4, atol=1e-5)
    assert again.warned == []


def test_what_nobody_serves_any_more_goes(packing: Packing, model: Path) -> None:
    packing.until_done(servable(model, "a" * 64))
    (old,) = packed(packing.packer._folder)
    for left in ("building-left", f"building-{2**22 + 1}-x", "building-1-x"):
        (packing.packer._folder / left).mkdir()
    packing.until_done(servable(model, "b" * 64))
    assert len(packed(packing.packer._folder)) == 3, "another server may need the one, and is at the other"
    os.utime(old, (0, 0))
    packing.until_done(servable(model, "c" * 64))
    names = {path.name for path in packed(packing.packer._folder)}
    assert old.name not in names
    assert "building-1-x" in names


def test_several_graphs_over_the_same_weights_are_packed_apart(packing: Packing, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.other.onnx"
    other.write_bytes(support.wide_model(tensors=2, size=200, scale=3.0).SerializeToString())
    one, two = servable(model), servable(other)
    packing.until_done(one)
    packing.until_done(two)
    assert np.allclose(answer(two), answer(servable(other)), rtol=1e-4, atol=1e-4)


def test_two_servers_pack_the_same_at_once(packing: Packing, model: Path) -> None:
    other = Packing(packing.packer._folder)
    one, two = servable(model), servable(model)
    mapped = (one.session, two.session)
    packing.packer.take([one])
    other.packer.take([two])
    packing.until_done(one)
    other.until_done(two)
    assert one.session is not mapped[0]
    assert two.session is not mapped[1]
    assert packing.warned == other.warned == []


def test_a_child_for_what_is_no_longer_served_is_ended(packing: Packing, model: Path) -> None:
    packing.packer.take([servable(model)])
    build = packing.packer._build
    assert build is not None
    packing.packer.take([])
    assert packing.packer._build is None
    assert build.process.returncode is not None
    assert not build.target.exists()


def test_a_version_that_does_not_keep_its_golden_cases_packed_stays_as_it_is(packing: Packing, model: Path) -> None:
    one = servable(model)
    mapped = one.session

    def refuse(*_: object) -> None:
        raise GoldenFailed("1 of 4 golden cases fail", hint="")

    one.repack = refuse
    packing.until_done(one)
    assert one.session is mapped
    assert packing.warned == ["m v1.0.0 stays as it is: 1 of 4 golden cases fail"]
    packing.packer.take([one])
    assert len(packing.warned) == 1, "and it is not tried again"


def test_a_model_the_child_cannot_open_stays_as_it_is(packing: Packing, model: Path, tmp_path: Path) -> None:
    one = servable(model)
    one.path = tmp_path / "gone.onnx"
    packing.until_done(one)
    (said,) = packing.warned
    assert said.startswith("m v1.0.0 stays as it is: ")
    assert packed(packing.packer._folder) == []
    packing.packer.take([one])
    assert packing.packer._build is None


def test_without_room_on_the_disk_nothing_is_begun(
    packing: Packing, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", never)
    whole = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: whole(path)._replace(free=100))
    one = servable(model)
    packing.until_done(one)
    assert packing.warned == ["m v1.0.0 stays as it is: there is not enough room on the disk"]
    packing.packer.take([one])
    assert len(packing.warned) == 1


def test_large_weights_are_mapped_and_packed_ones_taken_that_keep_the_cases(
    packing: Packing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    production = Production.make(tmp_path / "production")
    production.push(production.release("fraud@v1.0.0"))
    wanted = AspiredVersion("fraud", "v1.0.0", support.git(production.author, "rev-parse", "HEAD"), 1)
    loader = Loader(Fetcher(production.bare))
    assert not loader.fetcher.fetch(wanted).large
    monkeypatch.setattr(opening, "LEAST_PACKED", 1)
    fetched = loader.fetcher.fetch(wanted)
    assert fetched.large
    large = loader.opener.open(fetched)
    large.repack = lambda servable, path: loader.opener.repack(servable, path, fetched)
    mapped = large.session
    packing.until_done(large)
    assert large.session is not mapped
    assert packing.warned == []
    assert large.run_seconds >= max((named.run_seconds for named in large.named.values()), default=0.0)
    held = weakref.ref(large)
    gc.disable()
    try:
        del large
        assert held() is None, "its memory does not wait for Python to look for garbage"
    finally:
        gc.enable()


def test_whatever_goes_wrong_with_it_is_told_and_no_more(
    packing: Packing, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Servable) -> NoReturn:
        raise RuntimeError("no such processor")

    monkeypatch.setattr(packing.packer, "_key", broken)
    packing.packer.take([servable(model)])
    assert packing.warned == ["packing weights: RuntimeError: no such processor"]
