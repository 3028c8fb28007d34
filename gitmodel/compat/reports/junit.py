"""JUnit XML: one suite per model, one case per rule that was held against it, and one for the verdict itself.

Elements and attributes are those that Jenkins, GitLab and the usual GitHub actions read (testmoapp/junitxml lists them).
"""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from gitmodel.compat import rules
from gitmodel.compat.reports import wording
from gitmodel.compat.rules import Finding, Severity
from gitmodel.compat.verdict import Report
from gitmodel.errors import ExitCode


def render(reports: list[Report], *, colour: bool = False) -> str:  # noqa: ARG001  # XML has no colour
    root = Xml.Element("testsuites", name=wording.summary(reports))
    for report in reports:
        root.append(_suite(report))
    if not reports:
        # A run without any case looks like one that passed.
        suite = Xml.SubElement(root, "testsuite", name="check-compat")
        case = Xml.SubElement(suite, "testcase", classname="check-compat", name="verdict")
        Xml.SubElement(case, "skipped", message=wording.summary([]))
        _count(suite)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode")


def _suite(report: Report) -> Xml.Element:
    suite = Xml.Element("testsuite", name=f"check-compat {rules.plain(report.model)}")
    suite.append(_verdict(report))
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.rule, []).append(finding)
    for rule in rules.names():
        suite.append(_case(report, rule, found.get(rule, [])))
    return _count(suite)


def _verdict(report: Report) -> Xml.Element:
    case = _testcase(report, "verdict")
    line = wording.headline(report)
    if report.unjudged:
        error = Xml.SubElement(case, "error", type="unjudged", message=line)
        error.text = rules.plain(report.unjudged)
    elif report.exit_code is not ExitCode.OK:
        Xml.SubElement(case, "failure", type="incompatible", message=line).text = wording.counts(report)
    else:
        Xml.SubElement(case, "system-out").text = f"{line}\n{wording.counts(report)}"
    return case


def _case(report: Report, rule: str, found: list[Finding]) -> Xml.Element:
    """A rule fails when it found a break that is not paid for; what else it found is output."""
    case = _testcase(report, rule)
    place = next((finding.place for finding in found if finding.place), None)
    if place is not None:
        case.set("file", rules.plain(place.path))
        case.set("line", str(place.shown or 1))
    if not found:
        return case
    text = "\n\n".join("\n".join(_lines(finding)) for finding in found)
    breaks = [finding for finding in found if finding.severity is Severity.ERROR]
    if breaks and report.exit_code is not ExitCode.OK:
        failure = Xml.SubElement(case, "failure", type=rule, message=rules.plain(breaks[0].message))
        failure.text = text
    else:
        Xml.SubElement(case, "system-out").text = text
    return case


def _testcase(report: Report, name: str) -> Xml.Element:
    return Xml.Element("testcase", classname=f"check-compat.{rules.plain(report.model)}", name=name)


def _lines(found: Finding) -> list[str]:
    lines = [f"{found.severity}: {found.message}"]
    lines += [f"at: {found.place}"] if found.place else []
    if values := wording.values(found):
        lines.append(f"was: {values[0]}; now: {values[1]}")
    lines.append(f"who: {wording.who(found)}. {found.why}")
    lines += [f"seen: {found.witness}"] if found.witness else []
    lines = [rules.plain(line) for line in [*lines, f"mend: {found.fix}"]]
    return [*lines, *wording.exact(found.snippet)]


def _count(suite: Xml.Element) -> Xml.Element:
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(suite.findall("testcase"))))
    for key, tag in kinds.items():
        suite.set(key, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("time", "0")
    return suite
