"""The OpenAPI document of what the server answers, written by hand beside this file: the tests ask a server by it."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import orjson
import yaml


@cache
def document(version: str) -> bytes:
    """As JSON."""
    text = resources.files(__package__).joinpath("openapi.yaml").read_text()
    read: dict[str, Any] = yaml.safe_load(text)
    read["info"]["version"] = version
    return orjson.dumps(read)
