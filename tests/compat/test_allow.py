"""The allow-list: its YAML, what an entry does to a finding, and when it ends."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gitmodel.bundle.yamlio import InvalidYaml
from gitmodel.compat import allow, rules
from gitmodel.compat.allow import AllowList, Entry, Lists
from gitmodel.compat.changes import Change
from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.versions import Bump, Version

TODAY = date(2026, 11, 27)
REMOVED = rules.judge(Change("input-removed", "inputs.x", "x: float32[n]", None, {"name": "x"}))
OTHER = rules.judge(Change("input-removed", "inputs.y", "y: float32[n]", None, {"name": "y"}))
STALE = rules.judge(Change("signature-stale", "signature", {}, {}, {"label": "fraud", "side": "new"}))


def entry(finding: Finding = REMOVED, /, **options: Any) -> Entry:
    return replace(Entry(finding.rule, finding.at, finding.fingerprint, "agreed with all"), **options)


def lists(*entries: Entry, kept: bool = True, spent: bool = False) -> Lists:
    counting = AllowList(entries)
    return Lists(counting, counting if kept else AllowList(), counting if spent else AllowList())


def apply(given_: Lists, *findings: Finding, version: str = "") -> list[Finding]:
    return allow.apply(findings, given_, TODAY, Version.parse(version) if version else None)


def rules_of(findings: list[Finding]) -> list[str]:
    return [finding.rule for finding in findings]


def test_what_is_allowed_stays_visible_and_counts_for_nothing() -> None:
    (first, second) = apply(lists(entry()), REMOVED, OTHER)
    assert (first.severity, first.bump, first.allowed) == (
        Severity.INFO,
        dict.fromkeys(PROFILES, Bump.NONE),
        "agreed with all",
    )
    assert first.message == "allowed (agreed with all): input 'x' is gone"
    assert first.fingerprint == REMOVED.fingerprint
    assert second == OTHER


def test_what_no_bump_pays_for_can_be_allowed() -> None:
    (found,) = apply(lists(entry(STALE)), STALE)
    assert (found.curable, found.severity) == (True, Severity.INFO)


@pytest.mark.parametrize("options", [{"rule": "output-removed"}, {"at": "inputs.y"}])
def test_an_entry_must_fit_as_a_whole(options: dict[str, Any]) -> None:
    found = apply(lists(entry(**options)), REMOVED)
    assert found[0] == REMOVED
    assert rules_of(found) == ["input-removed", "allow-unmatched"]


def test_the_list_cannot_allow_what_is_wrong_with_the_list() -> None:
    expired = apply(lists(entry(expires=date(2026, 11, 26))), REMOVED)[1]
    found = apply(lists(entry(expires=date(2026, 11, 26)), entry(expired)), REMOVED, expired)
    assert [f.severity for f in found if f.rule == "allow-expired"] == [Severity.ERROR, Severity.ERROR]


@pytest.mark.parametrize(
    ("options", "version", "counts"),
    [
        ({"expires": date(2026, 11, 27)}, "", True),
        ({"expires": date(2026, 11, 26)}, "", False),
        ({"until": Version(3, 0, 0)}, "v2.9.9", True),
        ({"until": Version(3, 0, 0)}, "v3.0.0-rc.1", True),
        ({"until": Version(3, 0, 0)}, "v3.0.0", False),
        ({"until": Version(3, 0, 0)}, "v10.0.0", False),
        ({"until": Version(3, 0, 0)}, "", True),
        ({"until": Version(3, 0, 0), "expires": date(2026, 1, 1)}, "v1.0.0", False),
    ],
)
def test_an_entry_ends(options: dict[str, Any], version: str, counts: bool) -> None:
    found = apply(lists(entry(**options)), REMOVED, version=version)
    if counts:
        assert rules_of(found) == ["input-removed"]
        assert found[0].allowed
    else:
        assert (found[0], found[1].rule) == (REMOVED, "allow-expired")
        assert (found[1].severity, found[1].curable) == (Severity.ERROR, False)
        assert not allow.apply([REMOVED], lists(entry(**options), kept=False), TODAY, Version.parse("v10.0.0"))[1:]


def test_an_entry_that_fits_nothing_waits_for_its_release_and_fails_after_it() -> None:
    (waiting,) = apply(lists(entry()))
    assert (waiting.rule, waiting.severity, waiting.curable) == ("allow-unmatched", Severity.INFO, True)
    (stale,) = apply(lists(entry(), spent=True))
    assert (stale.rule, stale.severity, stale.curable) == ("allow-unmatched", Severity.ERROR, False)
    assert apply(lists(entry(), spent=True, kept=False)) == [], "the change that takes it out passes"


def test_only_the_trusted_list_counts() -> None:
    assert apply(Lists(AllowList(), AllowList((entry(),))), REMOVED) == [REMOVED]


def test_entries_are_printed_for_what_counts_and_read_back() -> None:
    drift = rules.judge(Change("input-added-with-default", "inputs.z", None, "z: float32[n]", {"name": "z"}))
    text = allow.to_paste([REMOVED, drift, STALE])
    assert [e.fingerprint for e in AllowList.from_yaml(text, "t").entries] == [REMOVED.fingerprint, STALE.fingerprint]
    assert "reason: WHY" in text
    assert allow.to_paste([drift]) == ""


VERSIONS = st.builds(Version, *[st.integers(0, 99)] * 3)
WORDS = st.text(min_size=1).filter(lambda text: bool(text.strip()))
ENTRIES = st.builds(
    Entry,
    WORDS,
    WORDS,
    st.text("0123456789abcdef", min_size=16, max_size=16),
    WORDS,
    st.none() | st.dates(),
    st.none() | VERSIONS,
)


@given(st.lists(ENTRIES, unique_by=lambda e: e.fingerprint))
def test_a_list_is_read_as_it_was_written(entries: list[Entry]) -> None:
    given_ = AllowList(tuple(entries))
    assert AllowList.from_yaml(given_.to_yaml(), "t") == given_


GOOD = "rule: input-removed\n  at: inputs.x\n  fingerprint: '0123456789abcdef'\n  reason: because\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "must be a list"),
        ("- 1", "entry 1 must be a mapping"),
        (f"- {GOOD}  reson: x\n", "unknown key 'reson'"),
        (f"- {GOOD}".replace("  reason: because\n", ""), "has no reason"),
        (f"- {GOOD}".replace("because", "' '"), "has no reason"),
        (f"- {GOOD}".replace("'0123456789abcdef'", "'0123'"), "16 hexadecimal digits"),
        (f"- {GOOD}".replace("'0123456789abcdef'", "1234567812345678"), "has no fingerprint"),
        (f"- {GOOD}- {GOOD}", "stands twice"),
        (f"- {GOOD}  expires: 2026-13-01\n", "expires is no day"),
        (f"- {GOOD}  expires: 20261301\n", "expires is no day"),
        (f"- {GOOD}  expires: never\n", "expires is no day"),
        (f"- {GOOD}  until: 3\n", "until is no version"),
        (f"- {GOOD}  until: next\n", "until is no version"),
        ("- &a {}\n- *a\n", "aliases are not allowed"),
    ],
)
def test_a_list_is_read_strictly(text: str, said: str) -> None:
    with pytest.raises(InvalidYaml, match=said):
        AllowList.from_yaml(text, "allow.yaml")


def test_an_empty_file_allows_nothing() -> None:
    assert AllowList.from_yaml("# nothing yet\n", "t") == AllowList()
    assert AllowList.from_yaml("[]\n", "t") == AllowList()
