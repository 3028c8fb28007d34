"""File names for tensors: readable, legal everywhere, unique even where file names ignore case."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from urllib.parse import quote

MAX_BYTES = 180


def tensor_files(names: Iterable[str]) -> dict[str, str]:
    """``tensors/<name>.h5`` for each tensor, relative to ``weights/``."""
    escaped = {name: quote(name, safe="") for name in names}
    seen: dict[str, int] = {}
    for text in escaped.values():
        seen[text.casefold()] = seen.get(text.casefold(), 0) + 1
    out = {}
    for name, text in escaped.items():
        unusual = len(text) > MAX_BYTES or seen[text.casefold()] > 1 or text in ("", ".", "..")
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        out[name] = f"tensors/{text[: MAX_BYTES - 13]}-{digest}.h5" if unusual else f"tensors/{text}.h5"
    return out
