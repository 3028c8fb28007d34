"""JUnit XML as its consumers count it."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

import pytest

from gitmodel.compat import rules
from gitmodel.compat.reports import junit, wording
from gitmodel.compat.verdict import Report
from gitmodel.versions import Bump
from tests.compat.samples import ALL, BROKEN, CLEAN, HOSTILE, RENAMED, SNIPPET, STRANGE, UNJUDGED, WITNESS, report


def document(given: list[Report]) -> Xml.Element:
    return Xml.fromstring(junit.render(given))


def case(root: Xml.Element, name: str) -> Xml.Element:
    (found,) = [case for case in root.iter("testcase") if case.get("name") == name]
    return found


def test_a_suite_per_model_with_a_case_per_rule_and_one_for_the_verdict() -> None:
    root = document(ALL)
    assert [suite.get("name") for suite in root] == [f"check-compat {r.model}" for r in ALL]
    for suite in root:
        assert [c.get("name") for c in suite] == ["verdict", *rules.names()]
        assert {c.get("classname") for c in suite} == {str(suite.get("name")).replace(" ", ".")}


@pytest.mark.parametrize("given", [[], [BROKEN], [UNJUDGED], ALL], ids=["none", "broken", "unjudged", "all"])
def test_the_counts_are_those_of_the_elements(given: list[Report]) -> None:
    root = document(given)
    for element in (root, *root):
        for key, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert element.get(key) == str(len(list(element.iter(tag)))), (element.tag, key)


def test_a_rule_that_found_a_break_fails_with_all_there_is_to_say() -> None:
    found = case(document([BROKEN]), "input-renamed")
    assert (found.get("file"), found.get("line")) == ("models/fraud/signature.yaml", "5")
    (failure,) = found
    assert (failure.tag, failure.get("message")) == ("failure", "input 'x' is now called 'features'")
    for said in ("was: x; now: features", WITNESS, SNIPPET, "mend: Rename it back"):
        assert said in str(failure.text)


def test_a_warning_is_output_and_no_failure() -> None:
    (output,) = case(document([BROKEN]), "goldens-missing")
    assert output.tag == "system-out"
    assert list(case(document([BROKEN]), "input-added-required")) == []


def test_the_verdict_fails_errs_or_passes() -> None:
    for given, tag in ((BROKEN, "failure"), (UNJUDGED, "error"), (CLEAN, "system-out")):
        (found,) = case(document([given]), "verdict")
        assert found.tag == tag
        assert wording.headline(given) in (found.get("message"), str(found.text).split("\n")[0])


def test_a_break_that_is_paid_for_fails_nothing() -> None:
    assert document([report([RENAMED], declared=Bump.MAJOR)]).get("failures") == "0"
    assert document([report([RENAMED], declared=Bump.MINOR)]).get("failures") == "2"


def test_nothing_compared_is_skipped_and_not_passed() -> None:
    root = document([])
    assert (root.get("tests"), root.get("skipped")) == ("1", "1")


def test_a_hostile_name_is_well_formed_xml() -> None:
    found = case(document([STRANGE]), "input-removed")
    assert rules.plain(HOSTILE) in str(found[0].get("message"))
