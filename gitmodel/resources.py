"""Files that travel with the package: hook shims and templates, from the wheel or, when developed, from the checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def hooks_dir() -> Path:
    """The folder with the sh shims."""
    packaged = _PACKAGE / "_hooks"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "hooks"


def template(name: str) -> str:
    """The text of a template; ``gitattributes`` is the repository's .gitattributes.example."""
    packaged = _PACKAGE / "_templates" / name
    if packaged.is_file():
        return packaged.read_text()
    checkout = _PACKAGE.parent
    return (checkout / (".gitattributes.example" if name == "gitattributes" else f"templates/{name}")).read_text()
