"""gitmodel: Git is the model registry. Names are exported lazily, so that importing this costs nothing.

Their types stand in ``__init__.pyi``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "GitmodelError": "gitmodel.errors",
    "check_compat": "gitmodel.workflows.check",
    "export": "gitmodel.workflows.export",
    "load": "gitmodel.workflows.load",
    "save": "gitmodel.workflows.save",
}
__all__ = ["GitmodelError", "__version__", "check_compat", "export", "load", "save"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("gitmodel")
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'gitmodel' has no attribute {name!r}")
