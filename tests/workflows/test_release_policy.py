"""The gate of ``release`` and the policy: what is allowed owes nothing, ends when it should, and stands in the tag."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from gitmodel.compat.verdict import Report
from gitmodel.versions import Bump
from gitmodel.workflows import check, release
from gitmodel.workflows.release import GateRefused
from tests import support
from tests.compat import pairs
from tests.compat.pairs import scaled
from tests.compat.pairs_policy import ALLOW, BREAK, CARD, RENAMED, entry, write

TODAY = date(2026, 11, 27)
Renamed = Callable[..., Path]


@pytest.fixture
def renamed(tmp_path: Path) -> Renamed:
    """``fraud@v1.0.0``, then a break and an allow-list with these options, both committed."""

    def made(**options: str) -> Path:
        pairs.repository(tmp_path)
        pairs.save(tmp_path, scaled("1.0"))
        pairs.release(tmp_path)
        pairs.save(tmp_path, RENAMED)
        write(tmp_path, {ALLOW: entry(**options)}, "Allow it")
        return tmp_path

    return made


def rules_of(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def trailers(repo: Path, tag: str) -> dict[str, str]:
    body = support.git(repo, "for-each-ref", "--format=%(contents:trailers:only)", f"refs/tags/{tag}")
    return dict(line.split(": ", 1) for line in body.splitlines())


def test_without_a_list_the_break_takes_a_major_version(renamed: Renamed) -> None:
    repo = renamed()
    write(repo, {ALLOW: None}, "Nothing is allowed")
    done = release.release("fraud", repo=repo, today=TODAY)
    assert done.tag == "fraud@v2.0.0"
    assert "Allowed" not in trailers(repo, done.tag)


def test_what_is_allowed_owes_no_bump_and_stands_in_the_tag(renamed: Renamed) -> None:
    repo = renamed()
    done = release.release("fraud", repo=repo, today=TODAY)
    assert done.tag == "fraud@v1.0.1"
    assert done.report is not None
    assert "allowlist-changed" in rules_of(done.report)
    found = trailers(repo, done.tag)
    assert found["Allowed"] == f"{BREAK.fingerprint} input-renamed inputs.x"
    assert (found["Verdict"], found["Required-Bump"]) == ("compatible", "patch")


def test_a_bump_too_small_for_what_is_not_allowed_is_refused(renamed: Renamed) -> None:
    repo = renamed()
    pairs.save(repo, RENAMED.replace("{1.0}", "{1.0625}"))
    with pytest.raises(GateRefused) as raised:
        release.release("fraud", "patch", repo=repo, today=TODAY)
    assert raised.value.report.required_bump is Bump.MINOR
    assert {"bump-too-small", "golden-drift"} <= rules_of(raised.value.report)
    assert release.release("fraud", "minor", repo=repo, today=TODAY).tag == "fraud@v1.1.0"


@pytest.mark.parametrize("step", ["auto", "patch", "major"])
def test_what_has_expired_stops_every_release(renamed: Renamed, step: str) -> None:
    repo = renamed(expires="2026-11-26")
    with pytest.raises(GateRefused) as raised:
        release.release("fraud", step, repo=repo, today=TODAY)
    assert "allow-expired" in rules_of(raised.value.report)
    assert raised.value.report.incurable


def test_an_entry_holds_until_its_version(renamed: Renamed) -> None:
    repo = renamed(until="v2.0.0")
    with pytest.raises(GateRefused) as raised:
        release.release("fraud", "v2.0.0", repo=repo, today=TODAY)
    assert "allow-expired" in rules_of(raised.value.report)
    assert release.release("fraud", "v1.9.0", repo=repo, today=TODAY).tag == "fraud@v1.9.0"


def test_a_version_that_is_owed_anyway_ends_an_entry(renamed: Renamed) -> None:
    """The next version is v1.0.1 by what is allowed, and the entry ends there: so nothing is allowed."""
    repo = renamed(until="v1.0.1")
    with pytest.raises(GateRefused) as raised:
        release.release("fraud", repo=repo, today=TODAY)
    assert {"allow-expired", "input-renamed"} <= rules_of(raised.value.report)
    assert raised.value.report.required_bump is Bump.MAJOR


def test_an_entry_has_one_release(renamed: Renamed) -> None:
    repo = renamed()
    release.release("fraud", repo=repo, today=TODAY)
    support.git(repo, "branch", "base")
    pairs.save(repo, RENAMED.replace("{1.0}", "{1.0625}"))
    (report,) = check.check_changed(repo, against="base", today=TODAY)
    assert [f.curable for f in report.findings if f.rule == "allow-unmatched"] == [False]
    with pytest.raises(GateRefused) as raised:
        release.release("fraud", repo=repo, today=TODAY)
    assert "allow-unmatched" in rules_of(raised.value.report)
    write(repo, {ALLOW: None}, "It has had its use")
    (report,) = check.check_changed(repo, against="base", today=TODAY)
    assert "allow-unmatched" not in rules_of(report)
    assert release.release("fraud", repo=repo, today=TODAY).tag == "fraud@v1.1.0"


def test_between_the_merge_and_the_release_an_entry_is_not_in_the_way(renamed: Renamed) -> None:
    repo = renamed()
    support.git(repo, "branch", "base")
    pairs.save(repo, RENAMED.replace("{1.0}", "{1.0625}"))
    (report,) = check.check_changed(repo, against="base", today=TODAY)
    assert [f.curable for f in report.findings if f.rule == "allow-unmatched"] == [True]
    assert report.exit_code == 0


def test_a_mode_is_kept_in_the_tag(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    old, new = pairs.MODELS["output-added"]()
    pairs.save(tmp_path, str(old))
    pairs.release(tmp_path)
    pairs.save(tmp_path, str(new))
    with pytest.raises(GateRefused):
        release.release("fraud", "minor", repo=tmp_path, mode="full")
    done = release.release("fraud", repo=tmp_path, mode="full")
    assert (done.tag, trailers(tmp_path, done.tag)["Mode"]) == ("fraud@v2.0.0", "full")


def test_consumers_count_at_a_release(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    old, new = pairs.MODELS["output-removed"]()
    pairs.save(tmp_path, str(old))
    shop = {"consumers/shop.yaml": "name: shop\nmodel: fraud\ninputs: [x]\noutputs: [y]\n"}
    write(tmp_path, {**shop, CARD: (tmp_path / CARD).read_text() + "consumers_complete: true\n"}, "Who uses it")
    pairs.release(tmp_path)
    pairs.save(tmp_path, str(new))
    done = release.release("fraud", repo=tmp_path)
    assert done.report is not None
    (found,) = [f for f in done.report.findings if f.rule == "output-removed"]
    assert (done.tag, found.spared) == ("fraud@v1.1.0", True)
