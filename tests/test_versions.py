"""Versions, bumps and tag names: SemVer's order, the steps between versions, GTO's grammar, hostile names."""

from __future__ import annotations

import random
import re
from typing import Any

import gto.constants
import pytest
import semver
from hypothesis import given, settings
from hypothesis import strategies as st

from gitmodel.versions import (
    MAX_NAME,
    Bump,
    InvalidName,
    InvalidVersion,
    ReleaseTag,
    StageTag,
    Version,
    check_name,
    parse_tag,
)

_numbers = st.integers(0, 3) | st.integers(0, 10**20)
_alphanumerics = st.from_regex(r"[0-9]{0,2}[a-zA-Z-][0-9a-zA-Z-]{0,3}", fullmatch=True).filter(str.isascii)
_pre = st.lists(st.integers(0, 11).map(str) | _alphanumerics, max_size=3).map(".".join)
_build = st.lists(st.text("0123456789abzAZ-", min_size=1, max_size=3), max_size=2).map(".".join)
versions = st.builds(Version, _numbers, _numbers, _numbers, _pre, _build)
releases = st.builds(Version, _numbers, _numbers, _numbers)
bumps = st.sampled_from([Bump.PATCH, Bump.MINOR, Bump.MAJOR])
names = st.from_regex(gto.constants.name, fullmatch=True).filter(lambda name: name.isascii() and "/" not in name)

#: What tag names are made of, legal and not, so that drawn texts come close to the grammar.
_PIECES = [
    "a", "fraud", "A9", "-", "_", "/", ".", "=", "@", "#", "!", "v", "1", "0", "01", "1.0.0", "v1.2.0", "v2.0.0-rc.1",
    "v1.0.0+b", "deprecated", "created", "latest", "#2", "\n", "\r", "é", ";", "`", "$(", "'", '"', " ",
]  # fmt: skip
_tag_texts = st.lists(st.sampled_from(_PIECES), max_size=6).map("".join)
_likely_tags = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["fraud", "a", "a-b_c", "-a", "a-", "models/eu=fraud", "é", ""]),
    st.sampled_from(["@v1.2.0", "@v01.2.0", "@v1.2", "@1.2.0", "@v1.2.0-rc.1+b.2", "#prod", "#", "@", "@deprecated", "@created", ""]),
    st.sampled_from(["", "!"]),
    st.sampled_from(["", "#3", "#03", "#x", "#-1", "\n", " "]),
)  # fmt: skip


def compared(left: Version, right: Version) -> tuple[bool, ...]:
    return left < right, left <= right, left > right, left >= right


@given(versions)
def test_a_version_is_read_as_it_was_written(version: Version) -> None:
    assert Version.parse(str(version)) == version
    assert Version.parse(str(version)[1:]) == version
    parsed = semver.Version.parse(str(version)[1:])
    assert (parsed.prerelease or "", parsed.build or "") == (version.pre, version.build)


@given(versions, versions)
def test_the_order_is_that_of_semver(left: Version, right: Version) -> None:
    theirs: tuple[Any, Any] = (semver.Version.parse(str(left)[1:]), semver.Version.parse(str(right)[1:]))
    a, b = theirs
    assert compared(left, right) == (a < b, a <= b, a > b, a >= b)


def test_builds_of_a_version_stand_at_the_same_place() -> None:
    a, b = Version.parse("1.0.0+a"), Version.parse("1.0.0+b")
    assert a != b
    assert compared(a, b) == compared(b, a) == (False, True, False, True)
    assert a.bump_from(b) is b.bump_from(a) is Bump.NONE


def test_the_order_of_the_specification() -> None:
    texts = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]
    expected = [Version(1, 0, 0, text) for text in texts] + [
        Version(*n) for n in ((1, 0, 0), (1, 9, 0), (1, 10, 0), (10, 0, 0))
    ]
    assert sorted(random.Random(1).sample(expected, len(expected))) == expected


@given(versions, bumps)
def test_a_bump_gives_the_next_version_of_semver(version: Version, bump: Bump) -> None:
    theirs = semver.Version.parse(str(version)[1:]).next_version(str(bump))
    assert str(version.bumped(bump)) == f"v{theirs}"


@given(releases, bumps)
def test_a_bump_is_what_leads_from_the_one_version_to_the_other(version: Version, bump: Bump) -> None:
    assert version.bumped(bump).bump_from(version) is bump
    assert version.bump_from(version.bumped(bump)) is Bump.NONE
    assert version.bump_from(version) is Bump.NONE


@given(versions, bumps)
def test_a_bump_always_goes_forward_and_far_enough(version: Version, bump: Bump) -> None:
    following = version.bumped(bump)
    assert following > version
    assert not following.pre
    assert following.bump_from(version) >= bump


@pytest.mark.parametrize(
    ("base", "bump", "expected"),
    [
        ("1.2.3", Bump.PATCH, "v1.2.4"),
        ("1.2.3", Bump.MINOR, "v1.3.0"),
        ("1.2.3", Bump.MAJOR, "v2.0.0"),
        ("0.9.9", Bump.MINOR, "v0.10.0"),
        ("1.2.3+build", Bump.PATCH, "v1.2.4"),
        ("2.0.0-rc.1", Bump.PATCH, "v2.0.0"),
        ("2.0.0-rc.1", Bump.MAJOR, "v2.0.0"),
        ("2.1.0-rc.1", Bump.MINOR, "v2.1.0"),
        ("2.1.0-rc.1", Bump.MAJOR, "v3.0.0"),
        ("2.1.1-rc.1", Bump.PATCH, "v2.1.1"),
        ("2.1.1-rc.1", Bump.MINOR, "v2.2.0"),
    ],
)
def test_examples_of_bumps(base: str, bump: Bump, expected: str) -> None:
    assert str(Version.parse(base).bumped(bump)) == expected


@pytest.mark.parametrize(
    ("version", "base", "bump"),
    [
        ("2.0.0", "1.9.9", Bump.MAJOR),
        ("1.10.0", "1.9.9", Bump.MINOR),
        ("1.9.10", "1.9.9", Bump.PATCH),
        ("1.9.9", "1.9.10", Bump.NONE),
        ("1.0.0-rc.2", "1.0.0-rc.1", Bump.PATCH),
        ("2.0.0", "2.0.0-rc.1", Bump.MAJOR),
        ("3.0.0", "2.1.0-rc.1", Bump.MAJOR),
    ],
)
def test_examples_of_steps(version: str, base: str, bump: Bump) -> None:
    assert Version.parse(version).bump_from(Version.parse(base)) is bump


NO_VERSIONS = [
    "", "1", "1.2", "v", "1.2.3.4", "01.2.3", "1.02.3", "1.2.03", "1.2.3-", "1.2.3-01", "1.2.3-a..b", "1.2.3+", "1.2.3+a+b",
    " 1.2.3", "1.2.3 ", "1.2.3\n", "V1.2.3", "vv1.2.3", "-1.2.3", "1.2.x", "1.1\u0663.0", "1.2.3-1\u0663a",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_VERSIONS)
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidVersion, match="is no semantic version"):
        Version.parse(text)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    digits = "9" * 5000
    for text in (f"{digits}.0.0", f"1.0.0-{digits}"):
        with pytest.raises(InvalidVersion):
            max(Version.parse(text), Version.parse("1.0.0-1"))
    for tag in (f"a@v{digits}.0.0", f"a#prod#{digits}"):
        assert parse_tag(tag) is None


def test_bumps_are_ordered_and_named() -> None:
    assert max(Bump.PATCH, Bump.MAJOR, Bump.MINOR) is Bump.MAJOR
    assert [str(bump) for bump in Bump] == ["none", "patch", "minor", "major"]
    assert all(Bump.parse(str(bump)) is bump for bump in Bump)
    with pytest.raises(InvalidVersion, match="'huge' is no bump"):
        Bump.parse("huge")


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("fraud@v1.2.0", ReleaseTag("fraud", Version(1, 2, 0))),
        ("fraud@v1.2.0!", ReleaseTag("fraud", Version(1, 2, 0), cancelled=True)),
        ("fraud@v2.0.0-rc.1+b", ReleaseTag("fraud", Version(2, 0, 0, "rc.1", "b"))),
        ("fraud#prod", StageTag("fraud", "prod")),
        ("fraud#prod#12", StageTag("fraud", "prod", 12)),
        ("fraud#prod!#3", StageTag("fraud", "prod", 3, cancelled=True)),
        ("A-b_9#9", StageTag("A-b_9", "9")),
        ("fraud@deprecated", None),
        ("fraud@created", None),
        ("fraud@latest", None),
        ("fraud@1.2.0", None),
        ("v1.2.0", None),
        ("fraud", None),
        ("", None),
    ],
)
def test_what_a_tag_means(text: str, tag: ReleaseTag | StageTag | None) -> None:
    assert parse_tag(text) == tag


def test_a_tag_of_another_folder_is_no_tag_of_this_model() -> None:
    tag = parse_tag("models/eu=fraud@v1.2.0")
    assert tag is None or str(tag) == "models/eu=fraud@v1.2.0"


@given(names, versions, st.booleans())
def test_a_release_tag_is_read_as_it_was_written(name: str, version: Version, cancelled: bool) -> None:
    tag = ReleaseTag(name, version, cancelled)
    assert parse_tag(str(tag)) == tag
    theirs = gto.constants.tag_re.search(str(tag))
    assert theirs
    assert (theirs["artifact"], theirs["version"], theirs["cancel"]) == (name, str(version), "!" * cancelled)


@given(names, names, st.integers(0, 10**9), st.booleans())
def test_a_stage_tag_is_read_as_it_was_written(name: str, stage: str, counter: int, cancelled: bool) -> None:
    tag = StageTag(name, stage, counter, cancelled)
    assert parse_tag(str(tag)) == tag
    theirs = gto.constants.tag_re.search(str(tag))
    assert theirs
    assert (theirs["artifact"], theirs["stage"], theirs["counter"]) == (name, stage, str(counter))


@settings(max_examples=500)
@given(_likely_tags | _tag_texts | st.text(max_size=20))
def test_a_tag_is_ours_exactly_if_it_is_gtos(text: str) -> None:
    ours = parse_tag(text)
    # GTO's names may have slashes and its '$' lets a last line end pass; both are no names of ours.
    theirs = gto.constants.tag_re.search(text) if text.isascii() and "\n" not in text else None
    if theirs is None or theirs["deprecated"] or theirs["created"] or "/" in theirs["name"] + (theirs["stage"] or ""):
        assert ours is None
        return
    if theirs["dirname"]:
        assert ours is None or str(ours).startswith(theirs["artifact"])
        return
    assert ours is not None
    assert ours.model == theirs["artifact"]
    assert ours.cancelled is bool(theirs["cancel"])
    if isinstance(ours, ReleaseTag):
        assert str(ours.version) == theirs["version"]
    else:
        assert (ours.stage, ours.counter) == (theirs["stage"], int(theirs["counter"] or 0))


@given(names)
def test_a_name_that_passes_is_a_name_of_gto(name: str) -> None:
    assert check_name(name) == name
    assert re.fullmatch(gto.constants.name, name)
    assert parse_tag(f"{name}@v1.0.0") == ReleaseTag(name, Version(1, 0, 0))


HOSTILE_NAMES = [
    "", "-", "_a", "a-", "a_", "-rf", ".", "..", "../x", "a/b", "a\\b", "a b", "a\n", "\na", "a\0", "é", "1\u0663x", "HEAD@{0}",
    "v1;id", "`id`", "$(id)", "a'b", 'a"b', "a#b", "a@v1.0.0", "a!", "a=b", "a:b", "a.b", "a~1", "a^", "a*", "a?", "[a]",
    "a" * (MAX_NAME + 1),
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="no model name"):
        check_name(name)
    with pytest.raises(InvalidName, match="no stage name"):
        check_name(name, "stage")


def test_of_a_name_that_is_too_long_the_limit_is_said() -> None:
    with pytest.raises(InvalidName, match=f"no model name: use at most {MAX_NAME} characters"):
        check_name("a" * (MAX_NAME + 1))


@pytest.mark.parametrize("name", ["a", "9", "fraud", "a-b_c", "HEAD", "A" * MAX_NAME])
def test_a_plain_name_passes(name: str) -> None:
    assert check_name(name) == name
