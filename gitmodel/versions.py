"""Semantic versions, bumps and the grammar of tag names (GTO's). Pure values: Git itself is not touched here.

Sources: Semantic Versioning 2.0.0; the tag grammar of GTO (``name@v1.2.3``, ``name#stage#counter``).
"""

from __future__ import annotations

import re
from enum import IntEnum

from msgspec import Struct

from gitmodel.errors import GitmodelError

_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?"
# Python refuses to convert numbers of thousands of digits; nobody needs a hundred.
_NUMBER = r"(?:0|[1-9][0-9]{0,98})"
_PRE = rf"(?:{_NUMBER}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = (
    rf"(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.(?P<patch>{_NUMBER})"
    rf"(?:-(?P<pre>{_PRE}(?:\.{_PRE})*))?"
    r"(?:\+(?P<build>[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)
_NAME_RE = re.compile(_NAME)
_SEMVER_RE = re.compile(f"v?{_SEMVER}")
# GTO's ``name@deprecated`` says nothing here, and its ``folder=name@v1.0.0`` names a model of another folder.
_TAG_RE = re.compile(
    rf"(?P<name>{_NAME})(?:@v{_SEMVER}|\#(?P<stage>{_NAME}))(?P<cancel>!)?(?:\#(?P<counter>[0-9]{{1,99}}))?"
)
MAX_NAME = 100


class InvalidName(GitmodelError):
    """A model or stage name outside the grammar."""

    code = "invalid-name"


class InvalidVersion(GitmodelError):
    """Text that is no semantic version."""

    code = "invalid-version"


class Bump(IntEnum):
    """How far a version must move; ordered, so ``max`` of several is the one owed."""

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Bump:
        """Raises InvalidVersion for a word that names no bump."""
        try:
            return cls[text.upper()]
        except KeyError:
            raise InvalidVersion(f"'{text}' is no bump", hint="use major, minor or patch") from None


class Version(Struct, frozen=True):
    """A semantic version. Order is SemVer's, section 11: numbers as numbers, a pre-release before its release."""

    major: int
    minor: int
    patch: int
    pre: str = ""
    build: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """Accepts ``1.2.3`` and ``v1.2.3``. Raises InvalidVersion."""
        match = _SEMVER_RE.fullmatch(text)
        if not match:
            raise InvalidVersion(f"'{text[:60]}' is no semantic version", hint="write it like v1.2.0")
        return cls._from_match(match)

    @classmethod
    def _from_match(cls, match: re.Match[str]) -> Version:
        major, minor, patch = (int(match[part]) for part in ("major", "minor", "patch"))
        return cls(major, minor, patch, match["pre"] or "", match["build"] or "")

    def bumped(self, bump: Bump) -> Version:
        """The next version. A pre-release is finished first: 2.0.0-rc.1 bumped by anything within it is 2.0.0."""
        if self.pre and bump <= self._kind():
            return Version(self.major, self.minor, self.patch)
        if bump is Bump.MAJOR:
            return Version(self.major + 1, 0, 0)
        if bump is Bump.MINOR:
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)

    def bump_from(self, base: Version) -> Bump:
        """The bump that leads from ``base`` to this version; NONE if this one is not newer."""
        if self <= base:
            return Bump.NONE
        if base.pre and not self.pre:
            # What ``bumped`` counts: finishing 2.0.0-rc.1 is the step the pre-release was made for.
            floor = base.bumped(Bump.PATCH)
            return max(floor._kind(), self.bump_from(floor))
        if self.major != base.major:
            return Bump.MAJOR
        if self.minor != base.minor:
            return Bump.MINOR
        return Bump.PATCH

    def _kind(self) -> Bump:
        """The step a version of these numbers is from the one before it."""
        return Bump.PATCH if self.patch else Bump.MINOR if self.minor else Bump.MAJOR

    def _order(self) -> tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]:
        identifiers = self.pre.split(".") if self.pre else []
        keys = tuple((0, int(i), "") if i.isdigit() else (1, 0, i) for i in identifiers)
        return (self.major, self.minor, self.patch, 0 if self.pre else 1, keys)

    # Each by the order alone, which leaves the build out; equality, which does not, has no part in them.
    def __lt__(self, other: Version) -> bool:
        return self._order() < other._order()

    def __le__(self, other: Version) -> bool:
        return self._order() <= other._order()

    def __gt__(self, other: Version) -> bool:
        return self._order() > other._order()

    def __ge__(self, other: Version) -> bool:
        return self._order() >= other._order()

    def __str__(self) -> str:
        pre = f"-{self.pre}" if self.pre else ""
        build = f"+{self.build}" if self.build else ""
        return f"v{self.major}.{self.minor}.{self.patch}{pre}{build}"


class ReleaseTag(Struct, frozen=True):
    """``fraud@v1.2.0``; with ``cancelled`` (a trailing ``!``) the version is withdrawn."""

    model: str
    version: Version
    cancelled: bool = False

    def __str__(self) -> str:
        return f"{self.model}@{self.version}{'!' if self.cancelled else ''}"


class StageTag(Struct, frozen=True):
    """``fraud#prod#3``: the third time stage ``prod`` was moved. Without a counter it counts as 0."""

    model: str
    stage: str
    counter: int = 0
    cancelled: bool = False

    def __str__(self) -> str:
        return f"{self.model}#{self.stage}{'!' if self.cancelled else ''}#{self.counter}"


def parse_tag(name: str) -> ReleaseTag | StageTag | None:
    """The meaning of a tag's name, or None when it is none of ours: a strange tag never breaks a listing."""
    match = _TAG_RE.fullmatch(name)
    if not match:
        return None
    if match["stage"]:
        return StageTag(match["name"], match["stage"], int(match["counter"] or 0), bool(match["cancel"]))
    return ReleaseTag(match["name"], Version._from_match(match), bool(match["cancel"]))


def is_name(name: str) -> bool:
    """Whether ``name`` can be a folder, a tag and a URL segment."""
    return len(name) <= MAX_NAME and _NAME_RE.fullmatch(name) is not None


def check_name(name: str, kind: str = "model") -> str:
    """Returns ``name`` if it can be a folder, a tag and a URL segment. Raises InvalidName."""
    if len(name) > MAX_NAME:
        raise InvalidName(f"'{name[:60]}…' is no {kind} name", hint=f"use at most {MAX_NAME} characters")
    if not is_name(name):
        raise InvalidName(
            f"'{name[:60]}' is no {kind} name",
            hint="use letters, digits, '-' and '_', beginning and ending with a letter or digit",
        )
    return name
