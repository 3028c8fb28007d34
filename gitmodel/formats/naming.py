"""File names for tensors: readable, legal everywhere, unique even where file names ignore case."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import quote

MAX_BYTES = 180
#: A name that ends like the outcome for another one; it gets a hash of its own.
_HASHED = re.compile(r"-[0-9a-fA-F]{12}$")


def tensor_files(names: Iterable[str]) -> dict[str, str]:
    """``tensors/<name>.h5`` for each tensor, relative to ``weights/``."""
    escaped = {name: quote(name, safe="").replace("~", "%7E") for name in names}
    seen: dict[str, int] = {}
    for text in escaped.values():
        seen[text.casefold()] = seen.get(text.casefold(), 0) + 1
    out = {}
    for name, text in escaped.items():
        unusual = len(text) > MAX_BYTES or seen[text.casefold()] > 1 or text in ("", ".", "..") or _HASHED.search(text)
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        out[name] = f"tensors/{text[: MAX_BYTES - 13]}-{digest}.h5" if unusual else f"tensors/{text}.h5"
    return out
