"""The small files of a bundle that a save writes: the card, the signatures, params, metrics and assets, as bytes by path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gitmodel.bundle import bundle as bundle_files
from gitmodel.bundle import yamlio
from gitmodel.bundle.card import Card
from gitmodel.bundle.signature import Signatures
from gitmodel.workflows.reading import UnclearFiles

_DVC_YAML = "dvc.yaml"
#: What no line of text holds.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
#: The texts written here; a file that says anything else is the user's.
_OUR_DVC_YAML = (
    b"params:\n- params.yaml\n",
    b"metrics:\n- metrics.yaml\n",
    b"params:\n- params.yaml\nmetrics:\n- metrics.yaml\n",
)


def card_in(folder: Path, name: str) -> Card:
    path = folder / bundle_files.CARD
    return Card.from_yaml(path.read_bytes(), str(path)) if path.is_file() else Card(name)


def described(
    folder: Path, card: Card, made: tuple[str, str], signatures: Signatures, description: str
) -> dict[str, bytes]:
    """The card, with what a person wrote into it kept, and the signatures read from the model; ``made`` are the format and
    the framework it comes from."""
    texts = {bundle_files.SIGNATURE: signatures.to_yaml().encode()}
    new = card.with_source(*made)
    if description:
        new = new.described(description)
    # A card that says the same is left as the person laid it out, comments and all.
    if new != card or not (folder / bundle_files.CARD).is_file():
        texts[bundle_files.CARD] = new.to_yaml().encode()
    return texts


def yaml_text(value: Path | str | Mapping[str, Any] | None, what: str) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return yamlio.dump(dict(value)).encode()
    path = Path(value)
    if not path.is_file():
        raise UnclearFiles(f"there is no {what} file {path}", hint="check the path")
    return yamlio.dump(yamlio.load_mapping(path.read_bytes(), str(path))).encode()


def dvc_yaml(folder: Path, texts: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Tells DVC of the params and metrics, so that plain ``dvc params diff`` and ``dvc metrics diff`` show them."""
    files = {"params": bundle_files.PARAMS, "metrics": bundle_files.METRICS}
    listed = {key: [name] for key, name in files.items() if texts.get(name) is not None or (folder / name).is_file()}
    wanted = "".join(f"{key}:\n- {names[0]}\n" for key, names in listed.items()).encode()
    existing = folder / _DVC_YAML
    ours = not existing.exists() or existing.read_bytes() in _OUR_DVC_YAML
    return {_DVC_YAML: wanted} if listed and ours else {}


def assets_of(assets: Iterable[Path | str], labels: Path | str | None) -> dict[str, Path]:
    given = [(f"{bundle_files.ASSETS}/{Path(asset).name}", Path(asset)) for asset in assets]
    if labels:
        given.append((bundle_files.LABELS, Path(labels)))
    chosen: dict[str, Path] = {}
    for name, path in given:
        if path.is_dir():
            raise UnclearFiles(f"{path} is a folder", hint="name the files in it, one by one")
        if not path.is_file():
            said = f"{path} is no regular file" if path.exists() else f"there is no file {path}"
            raise UnclearFiles(said, hint="check the path")
        if name == bundle_files.LABELS and not _is_text(path.read_bytes()):
            raise UnclearFiles(f"{path} is no text in UTF-8", hint="give the class names, one per line")
        if name in chosen:
            raise UnclearFiles(f"{chosen[name]} and {path} would both be {name}", hint="rename one")
        chosen[name] = path
    return chosen


def _is_text(data: bytes) -> bool:
    try:
        return _CONTROL.search(data.decode()) is None
    except UnicodeDecodeError:
        return False
