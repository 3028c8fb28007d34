"""Models of every operator family and mutations of every kind: each judged as it must be. The whole run is
``python -m tests.compat.mutations --all``; what it showed stands in docs/proof.md."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from gitmodel.compat.verdict import Verdict
from gitmodel.versions import Bump
from gitmodel.workflows import check
from tests import support
from tests.compat import pairs
from tests.compat.mutations import MUTATIONS, magika, oracle, table
from tests.compat.mutations.__main__ import PASSES, of_pass
from tests.compat.mutations.corpus import Specimen, sample, specimens
from tests.compat.mutations.proof import Row, line, prove
from tests.compat.mutations.surgery import NotDefined
from tests.compat.mutations.truth import Truth, held_against

#: What it runs again and again is measured by the tests of each part; tracing it would double its time.
pytestmark = pytest.mark.no_cover

#: How many models each mutation meets here, and how many mutations each model. ``python -m tests.compat.mutations --all`` takes
#: them all.
MODELS, KINDS = 4, 3
#: Bytes that the oracle may take: some models of one operator take what is drawn for them for a size, and are refused, not the machine.
MEMORY = 2 << 30
#: Their drawn inputs are shapes and counts: the runtime takes gigabytes, or (STFT by steps of 0) dies of it.
RAVENOUS = ("STFT", "Tile", "Pad", "Upsample", "Resize", "Expand", "ConstantOfShape", "Loop")


@pytest.fixture(scope="module")
def tame() -> list[Specimen]:
    return [s for s in sample() if s.family not in RAVENOUS]


@pytest.fixture(scope="module")
def rows(tame: list[Specimen], tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Every mutation on the first models it is defined for, and every model with the next few that are defined for it."""
    folder, states = tmp_path_factory.mktemp("mutants"), dict[bytes, str]()
    # In this process, whatever it has done before, a real model may be refused as well: the bound is for these alone.
    with support.memory(MEMORY):
        found = [row for name in MUTATIONS for row in _first(list(tame), name, folder, states)]
        names = list(MUTATIONS)
        for number, specimen in enumerate(tame):
            turn = number * KINDS % len(names)
            found += _some(specimen, [*names[turn:], *names[:turn]], folder, states)
        return found


def _some(specimen: Specimen, names: list[str], folder: Path, states: dict[bytes, str]) -> Iterator[Row]:
    rows = (prove(specimen, name, folder, states) for name in names)
    return itertools.islice((row for row in rows if not row.undefined), KINDS)


def _first(models: list[Specimen], name: str, folder: Path, states: dict[bytes, str]) -> Iterator[Row]:
    """Exported networks come first: they have what the models of one operator lack."""
    left = MODELS
    for specimen in sorted(models, key=lambda s: (not s.family.startswith("pytorch"), s.name)):
        row = prove(specimen, name, folder, states)
        left -= not row.undefined
        yield row
        if not left:
            return


def test_every_judgement_is_right(rows: list[Row]) -> None:
    wrong = [f"{row.mutation} on {row.specimen}: {row.outcome}" for row in rows if not row.outcome.right]
    assert wrong == []


def test_every_kind_of_mutation_and_every_family_are_among_them(rows: list[Row], tame: list[Specimen]) -> None:
    judged = [row for row in rows if not row.undefined]
    assert {row.mutation for row in judged} == set(MUTATIONS)
    names = {row.specimen for row in judged}
    families = {specimen.family for specimen in tame if specimen.name in names}
    assert families >= {specimen.family for specimen in tame}
    assert sum(not row.outcome.unjudged for row in judged) > 0.6 * len(judged), "most are models this runtime runs"


def test_the_table_counts_what_was_judged(rows: list[Row], tame: list[Specimen]) -> None:
    lines = [json.loads(line(row, 0.01)) for row in rows]
    page = table.page(lines, tame)
    assert table.is_whole(page)
    assert "| **all** |" in page
    assert page.count("| 100 % |\n") == len(MUTATIONS) + 1
    missed = {**lines[0], "undefined": "", "missed": ["input-removed at inputs.x"], "found": 1}
    assert not table.is_whole(table.page([*lines, missed], tame))
    assert "50.00 %" in table.page([missed], tame)


def test_the_passes_together_are_every_pair_once(tame: list[Specimen]) -> None:
    pairs_of = [(s.name, name) for number in range(PASSES) for s, name in of_pass(tame, number)]
    assert len(pairs_of) == len(set(pairs_of)) == len(tame) * len(MUTATIONS)


def test_a_truth_notices_what_is_missing_and_what_is_too_much(tame: list[Specimen], tmp_path: Path) -> None:
    """The measure itself is measured: a wrong truth is never met."""
    specimen = next(s for s in tame if s.name == "node/test_add")
    row = prove(specimen, "input-removed", tmp_path, {})
    assert (row.outcome.found, row.outcome.right) == (1, True)
    report = check.check_compat(str(tmp_path / "old.onnx"), str(tmp_path / "new.onnx"), repo=tmp_path)
    silent = held_against(report, Truth(), "runs")
    assert silent.false == ("input-removed at inputs.mutant_extra",)
    assert [text.split()[0] for text in silent.wrong] == ["verdict", "owes", "no", "errors"]
    other = held_against(report, Truth({("output-removed", "outputs.sum"): ("major",) * 3}, replayed=False), "runs")
    assert other.missed == ("output-removed at outputs.sum",)


def test_the_oracle_climbs_the_ladder_by_itself() -> None:
    one = np.array([[1.0, 2.0], [4.0, 3.0]], "float32")
    steps = {
        oracle.SAME: one, oracle.NOISE: one * np.float32(1.0001), oracle.DRIFT: one * np.float32(1.05),
        oracle.FAILED: -one, oracle.NAN: one * np.float32("nan"), oracle.INF: one + np.float32("inf"),
    }  # fmt: skip
    assert {rung: oracle.rung([(one, other)]) for rung, other in steps.items()} == {rung: rung for rung in steps}
    assert oracle.rung([(np.arange(4), np.arange(4) + 1)]) == oracle.FAILED


def test_a_mutation_says_where_it_is_not_defined(tame: list[Specimen]) -> None:
    specimen = next(s for s in tame if s.name == "node/test_abs")
    with pytest.raises(NotDefined, match="no weights"):
        MUTATIONS["weights-negated"](specimen)
    assert len(specimens()) > 1900


# Through committed bundles ----------------------------------------------------------------------------------------------


def committed(tmp_path: Path, old: onnx.ModelProto, new: onnx.ModelProto, labels: tuple[list[str], list[str]]) -> Path:
    """``fraud@v1.0.0`` and ``fraud@v2.0.0`` in a repository, as a user commits and tags them."""
    repo = tmp_path / "repo"
    repo.mkdir()
    pairs.repository(repo)
    for number, (model, named) in enumerate(zip((old, new), labels, strict=True), 1):
        pairs.save(repo, model, labels=named)
        support.git(repo, "commit", "-q", "--allow-empty", "-m", "Next")
        pairs.tag(repo, f"{pairs.NAME}@v{number}.0.0")
    return repo


@pytest.mark.parametrize(
    "name",
    [
        "producer",
        "input-renamed",
        "output-added-in-front",
        "output-negated",
        "labels-swapped",
        "initializers-as-raw-bytes",
    ],
)
def test_committed_bundles_are_judged_like_bare_files(tame: list[Specimen], tmp_path: Path, name: str) -> None:
    for specimen in sorted(tame, key=lambda s: (not s.family.startswith("pytorch"), s.name)):
        try:
            mutant = MUTATIONS[name](specimen)
        except NotDefined:
            continue
        assert isinstance(mutant.old, onnx.ModelProto)
        assert isinstance(mutant.new, onnx.ModelProto)
        if oracle.state(mutant.old) == "runs":
            break
    else:
        raise AssertionError("it is defined for none")
    repo = committed(tmp_path, mutant.old, mutant.new, mutant.labels or ([], []))
    report = check.check_compat("fraud@v1.0.0", "fraud@v2.0.0", repo=repo)
    outcome = held_against(report, mutant.truth, "runs")
    assert outcome.right, (specimen.name, outcome, report.findings)
    assert report.verdict is not Verdict.UNJUDGED
    assert report.declared is Bump.MAJOR


# Real generations of one classifier -------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_every_step_of_a_real_classifier_is_judged_as_its_users_would(real_data: Path, tmp_path: Path) -> None:
    found = list(magika.rows(real_data / "magika", tmp_path))
    assert len(found) == len(magika.STEPS) + 2 * len(magika.GENERATIONS)
    assert [f"{row.mutation}: {row.outcome}" for row in found if not row.outcome.right] == []
    assert magika.reference(real_data / "magika", tmp_path) == (37, 37)


# What the mutations found -----------------------------------------------------------------------------------------------


def test_outputs_without_elements_are_compared_and_said_to_be_equal(tmp_path: Path) -> None:
    inner = "z = Constant<value_ints=[0]>() a = Constant<value_ints=[1]>() y = Slice(x, z, z, a)"
    nothing = f"(float[n,4] x) => (float[n,0] y) {{ {inner} }}"
    again = pairs.model(nothing)
    again.producer_name = "another"
    report = check.check_compat(*pairs_of_files(tmp_path, pairs.model(nothing), again), repo=tmp_path)
    assert {finding.rule for finding in report.findings} == {"golden-identical", "goldens-missing"}
    assert report.required_bump is Bump.PATCH


def test_a_break_by_the_signature_stands_where_no_case_can_be_drawn(tmp_path: Path) -> None:
    old, new = (
        "(seq(float[2]) x) => (float[2] y) { i = Constant<value_int=0>() y = SequenceAt(x, i) }",
        "(float[2] x) => (float[2] y) { y = Neg(x) }",
    )
    report = check.check_compat(*pairs_of_files(tmp_path, pairs.model(old), pairs.model(new)), repo=tmp_path)
    assert (report.verdict, report.required_bump, report.cases_run) == (Verdict.INCOMPATIBLE, Bump.MAJOR, 0)
    assert [finding.rule for finding in report.findings] == ["value-kind-changed"]


def pairs_of_files(folder: Path, old: onnx.ModelProto, new: onnx.ModelProto) -> list[str]:
    return [str(folder / name) for name in pairs.files(folder, old, new)]
