"""Bundles judged the whole way: named signatures, class lists, cards, assets and tags as they stand in a repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitmodel.compat.rules import Finding, Severity
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.versions import Bump
from gitmodel.workflows import save
from tests import support
from tests.compat import pairs
from tests.compat.pairs import NAME
from tests.compat.pairs_meaning import card, commit, grouped, recarded, released, reshelved

EMBED = "(float[batch,4] x) => (float[batch,4] e) <float scale = {%s}> { e = Mul(x, scale) }"


def judged(repo: Path, old: str, new: str = NAME) -> Report:
    return pairs.judged(old, new, repo)


def rules_of(report: Report) -> list[tuple[str, str]]:
    return [(finding.rule, finding.at) for finding in report.findings]


def find(report: Report, rule: str) -> Finding:
    return next(finding for finding in report.findings if finding.rule == rule)


def save_two(folder: Path, main: str, embed: str) -> None:
    """A model with a further graph, ``embed``."""
    for name, text in (("main", main), ("embed", embed)):
        (folder / f"{name}.onnx").write_bytes(pairs.model(text).SerializeToString())
    save.save(NAME, [folder / "main.onnx"], signatures={"embed": folder / "embed.onnx"}, repo=folder, message="Save")


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, str]:
    pairs.repository(tmp_path)
    save_two(tmp_path, pairs.scaled("1.0"), EMBED % "2.0")
    return tmp_path, pairs.release(tmp_path)


# Signatures with graphs of their own ------------------------------------------------------------------------------------


def test_a_graph_of_its_own_is_replayed_although_the_default_one_stays(two: tuple[Path, str]) -> None:
    repo, old = two
    save_two(repo, pairs.scaled("1.0"), EMBED % "-2.0")
    report = judged(repo, old)
    failed = find(report, "golden-failed")
    assert failed.at == "signatures.embed.outputs.e"
    assert failed.message.startswith("signature 'embed': output 'e' changed")
    assert ("golden-identical", "behaviour") in rules_of(report)
    assert ("goldens-missing", "signatures.embed.golden") in rules_of(report)
    assert (report.verdict, report.cases_run) == (Verdict.INCOMPATIBLE, 32)


def test_a_break_of_a_named_signature_is_seen_to_happen(two: tuple[Path, str]) -> None:
    repo, old = two
    save_two(
        repo,
        pairs.scaled("1.0"),
        (EMBED % "2.0").replace("(float[batch,4] x)", "(float[batch,4] z)").replace("(x,", "(z,"),
    )
    report = judged(repo, old)
    renamed = find(report, "input-renamed")
    assert renamed.at == "signatures.embed.inputs.x"
    assert "Required inputs (['z']) are missing" in renamed.witness
    assert (report.bump["named"], report.bump["positional"]) == (Bump.MAJOR, Bump.PATCH)


def test_a_default_of_a_further_graph_is_its_own(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    text = "(float[batch,4] x, float[1] scale = {%s}) => (float[batch,4] e) { e = Mul(x, scale) }"
    main = text.replace("[batch,4] e)", "[batch,4] y)").replace("e = Mul", "y = Mul") % "3.0"
    save_two(tmp_path, main, text % "2.0")
    old = pairs.release(tmp_path)
    save_two(tmp_path, main, text % "2.25")
    assert find(judged(tmp_path, old), "input-default-changed").at == "signatures.embed.inputs.scale"


def test_the_same_two_graphs_are_silent(two: tuple[Path, str]) -> None:
    repo, old = two
    assert rules_of(judged(repo, old)) == [("weights-unchanged", "weights")]


def test_a_graph_that_became_the_default_is_run_as_such(two: tuple[Path, str]) -> None:
    repo, _ = two
    path = repo / "models" / NAME / "model.yaml"
    path.write_text(path.read_text().replace("signature: default", "signature: embed"))
    commit(repo)
    old = pairs.tag(repo, f"{NAME}@v2.0.0")
    save_two(repo, pairs.scaled("1.0"), EMBED % "-2.0")
    report = judged(repo, old)
    assert find(report, "golden-failed").at == "outputs.e"
    assert ("golden-identical", "signatures.default.behaviour") in rules_of(report)
    assert "signature-stale" not in dict(rules_of(report))


# Groups ------------------------------------------------------------------------------------------------------------------

TWO = "(float[batch,4] x) => (float[batch,4] y, float[batch,4] size) { y = %s(x) size = Abs(x) }"


def test_a_group_is_the_default_with_the_golden_cases_of_the_whole_graph(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    cases = pairs.cases(tmp_path, [[1, 2, 3, 4], [4, 3, 2, 1]])
    pairs.save(tmp_path, TWO % "Neg", golden=cases)
    path = tmp_path / "models" / NAME / "model.yaml"
    path.write_text(
        path.read_text().replace("signature: default", "signature: part\nsignatures: {part: {outputs: [size]}}")
    )
    pairs.save(tmp_path, TWO % "Neg")
    old = pairs.tag(tmp_path, f"{NAME}@v1.0.0")
    pairs.save(tmp_path, TWO % "Exp", golden=cases)
    report = judged(tmp_path, old)
    assert ("golden-identical", "behaviour") in rules_of(report), "those who name no signature see no change"
    assert find(report, "golden-failed").at == "signatures.default.outputs.y"
    assert (report.unjudged, report.cases_run) == ("", 4)
    assert not {"signature-stale", "golden-self-failed", "goldens-missing"} & {
        finding.rule for finding in report.findings
    }


def test_a_group_of_what_the_default_replay_has_seen_is_not_run_again(tmp_path: Path) -> None:
    tag, _ = grouped(tmp_path, "signatures: {part: {outputs: [size]}}\n", "", model=TWO % "Neg")
    pairs.save(tmp_path, TWO % "Identity")
    card(tmp_path, "signatures: {part: {outputs: [size]}}\n")
    pairs.save(tmp_path, TWO % "Identity")
    report = judged(tmp_path, tag)
    assert (report.cases_run, find(report, "golden-failed").at) == (16, "outputs.y")
    assert not [place for _, place in rules_of(report) if place.startswith("signatures.")]


def test_a_group_in_the_card_that_was_not_saved_is_stale(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    pairs.save(tmp_path, TWO % "Neg")
    old = pairs.release(tmp_path)
    pairs.save(tmp_path, TWO % "Identity")
    card(tmp_path, "signatures: {part: {outputs: [size]}}\n")
    stale = find(judged(tmp_path, old), "signature-stale")
    assert (stale.severity, stale.new) == (Severity.ERROR, None)
    assert [spec["name"] for spec in stale.old["outputs"]] == ["size"]


def test_a_card_that_names_no_signature_there_is_cannot_be_judged(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    pairs.save(tmp_path, TWO % "Neg")
    old = pairs.release(tmp_path)
    path = tmp_path / "models" / NAME / "model.yaml"
    path.write_text(path.read_text().replace("signature: default", "signature: defautl"))
    report = judged(tmp_path, old)
    assert (report.verdict, int(report.exit_code)) == (Verdict.UNJUDGED, 3)
    assert report.unjudged == "model.yaml of fraud names the signature 'defautl', which is none of default"


def test_a_group_of_what_the_graph_lacks_cannot_be_judged(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    pairs.save(tmp_path, TWO % "Neg")
    old = pairs.release(tmp_path)
    pairs.save(tmp_path, TWO % "Identity")
    card(tmp_path, "signatures: {part: {outputs: [depth]}}\n")
    report = judged(tmp_path, old)
    assert (report.verdict, int(report.exit_code)) == (Verdict.UNJUDGED, 3)
    assert "'part' names 'depth', which the model does not have" in report.unjudged


# Class lists ------------------------------------------------------------------------------------------------------------


def classifier(classes: int, first: str = "0") -> str:
    order = ", ".join([first, *(str(i % 4) for i in range(1, classes))])
    return (
        f"(float[batch,4] x) => (float[batch,{classes}] scores) <int64[{classes}] order = {{{order}}}> "
        "{ scores = Gather<axis = 1>(x, order) }"
    )


def extended(repo: Path, new: str, said: str = "labels_extensible: true\n") -> Report:
    """A class appended to four, after a card that told clients so."""
    pairs.repository(repo)
    pairs.save(repo, classifier(4), labels=["cat", "dog", "owl", "pig"])
    card(repo, said)
    commit(repo)
    old = pairs.release(repo)
    pairs.save(repo, new, labels=["cat", "dog", "owl", "pig", "bat"])
    return judged(repo, old)


def test_a_class_that_clients_were_told_to_expect_is_a_minor_step(tmp_path: Path) -> None:
    report = extended(tmp_path, classifier(5))
    assert (report.verdict, report.required_bump) == (Verdict.COMPATIBLE, Bump.MINOR)
    assert {finding.severity for finding in report.findings if finding.rule.startswith(("label", "output"))} == {
        Severity.INFO
    }
    assert ("golden-identical", "behaviour") in rules_of(report), "the old classes score as before"


def test_the_old_classes_are_still_replayed_beside_a_new_one(tmp_path: Path) -> None:
    report = extended(tmp_path, classifier(5, first="1"))
    assert find(report, "golden-failed").at == "outputs.scores"
    assert report.required_bump is Bump.MAJOR


def test_a_class_that_nobody_was_told_of_is_major(tmp_path: Path) -> None:
    report = extended(tmp_path, classifier(5), said="")
    assert report.required_bump is Bump.MAJOR
    assert {"label-appended", "output-dim-changed"} <= {f.rule for f in report.findings if f.severity is Severity.ERROR}


def test_a_card_that_only_now_says_so_does_not_help(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    pairs.save(tmp_path, classifier(4), labels=["cat", "dog", "owl", "pig"])
    old = pairs.release(tmp_path)
    pairs.save(tmp_path, classifier(5), labels=["cat", "dog", "owl", "pig", "bat"])
    card(tmp_path, "labels_extensible: true\n")
    report = judged(tmp_path, old)
    assert report.required_bump is Bump.MAJOR
    assert ("labels-extensible-changed", "card.labels_extensible") in rules_of(report)


def test_class_lists_of_several_outputs(tmp_path: Path) -> None:
    said = "labels:\n  y: topics.txt\n"
    tag = released(tmp_path, said, {"topics.txt": "art\nlaw\ntax\nzoo\n"})
    (tmp_path / "models" / NAME / "assets" / "topics.txt").write_text("art\ntax\nlaw\nzoo\n")
    report = judged(tmp_path, tag)
    assert rules_of(report) == [("label-reordered", "labels.y"), ("weights-unchanged", "weights")]
    assert report.findings[0].message.startswith("output 'y': ")


# Other assets, cards and files ---------------------------------------------------------------------------------------------


def test_another_layout_of_the_card_is_silent(tmp_path: Path) -> None:
    old = "postprocessing: {threshold: 0.5}\npreprocessing: {mean: [1, 2]}\n"
    new = "preprocessing:\n  # as ever\n  where: client\n  mean:\n  - 1\n  - 2.0\npostprocessing:\n  threshold: 5e-1\n"
    assert rules_of(judged(tmp_path, *recarded(tmp_path, old, new))) == [("weights-unchanged", "weights")]


def test_assets_of_a_checkpoint_count_too(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    weights, vocab = tmp_path / "w.h5", tmp_path / "vocab.txt"
    pairs.checkpoint(weights, {"kernel": pairs._KERNEL})
    vocab.write_text("a\nb\n")
    save.save(NAME, [weights], assets=[vocab], repo=tmp_path, message="Save")
    old = pairs.release(tmp_path)
    vocab.write_text("b\na\n")
    save.save(NAME, [weights], assets=[vocab], repo=tmp_path, message="Save")
    assert [f.rule for f in judged(tmp_path, old).findings] == ["vocabulary-changed"]


def test_a_bare_file_says_what_it_could_not_be_held_against(tmp_path: Path) -> None:
    tag, _ = reshelved(tmp_path, "vocab.txt", "a\n", "a\n")
    new = tmp_path / "new.onnx"
    new.write_bytes(pairs.model(pairs.scaled("-1.0")).SerializeToString())
    report = judged(tmp_path, tag, str(new))
    assert "of the old version, assets could not be compared" in find(report, "card-not-compared").message
    assert report.verdict is Verdict.COMPATIBLE
    assert "card-not-compared" not in dict(rules_of(judged(tmp_path, str(new), NAME)))


def test_a_bare_file_without_a_card_before_it_is_not_spoken_of(tmp_path: Path) -> None:
    paths = [str(tmp_path / side) for side in pairs.files(tmp_path, pairs.scaled("1.0"), pairs.scaled("1.0625"))]
    assert "card-not-compared" not in dict(rules_of(judged(tmp_path, *paths)))


def test_an_optional_input_that_became_a_plain_constant(tmp_path: Path) -> None:
    text = "(float[batch,4] x%s) => (float[batch,4] y) %s { y = Mul(x, scale) }"
    sides = pairs.files(tmp_path, text % (", float[1] scale = {2.0}", ""), text % ("", "<float[1] scale = {2.0}>"))
    report = judged(tmp_path, *(str(tmp_path / side) for side in sides))
    assert ("input-became-constant", "inputs.scale") in rules_of(report)


# Tags -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tagged(tmp_path: Path) -> tuple[Path, str, str]:
    """A repository with a release, the release's tag and its message."""
    pairs.repository(tmp_path)
    pairs.save(tmp_path, pairs.scaled("1.0"))
    old = pairs.release(tmp_path)
    words = support.git(tmp_path, "tag", "-l", "--format=%(contents)", old)
    pairs.save(tmp_path, pairs.scaled("1.0625"))
    return tmp_path, old, words


def test_a_tag_that_is_what_it_says_is_not_spoken_of(tagged: tuple[Path, str, str]) -> None:
    repo, old, _ = tagged
    assert "tag-content-mutated" not in dict(rules_of(judged(repo, old)))


def test_a_moved_tag_never_passes(tagged: tuple[Path, str, str]) -> None:
    repo, old, words = tagged
    support.git(repo, "tag", "-f", "-a", "-m", words, old)
    report = judged(repo, old)
    assert find(report, "tag-content-mutated").at == old
    assert int(report.exit_code) == 1


def test_a_tag_with_the_message_of_another_never_passes(tagged: tuple[Path, str, str]) -> None:
    repo, old, words = tagged
    copied = f"{NAME}@v1.1.0"
    support.git(repo, "tag", "-a", "-m", words, copied, f"{old}^{{commit}}")
    found = find(judged(repo, copied), "tag-content-mutated")
    assert found.message == f"tag {copied} is not what it was made for: its message is that of {NAME}@v1.0.0"


@pytest.mark.parametrize(
    "block", ["-----BEGIN SSH SIGNATURE-----\nWeights: x\n", "\n-----BEGIN PGP SIGNATURE-----\n\nabc\n"]
)
def test_a_signature_below_the_message_is_no_part_of_it(tagged: tuple[Path, str, str], block: str) -> None:
    repo, old, words = tagged
    support.git(repo, "tag", "-f", "-a", "--cleanup=verbatim", "-m", f"{words}\n{block}", old)
    assert "it was made for weights" in find(judged(repo, old), "tag-content-mutated").message


@pytest.mark.parametrize("flags", [["-f"], ["-f", "-a", "-m", "By hand"]])
def test_a_tag_made_by_hand_says_nothing(tagged: tuple[Path, str, str], flags: list[str]) -> None:
    repo, old, _ = tagged
    support.git(repo, "tag", *flags, old)
    assert "tag-content-mutated" not in dict(rules_of(judged(repo, old)))
