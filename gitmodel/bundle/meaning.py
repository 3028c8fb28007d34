"""What the card says of a model's values that no graph can: how they are prepared, what they mean, which state is carried on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from gitmodel.bundle import yamlio
from gitmodel.bundle.lock import inside

KEYS = frozenset(
    {"preprocessing", "postprocessing", "labels", "labels_extensible", "meaning", "state", "inference_params"}
)
#: Who prepares inputs: every caller, or the graph itself.
WHERE = ("client", "graph")


class Meaning(Struct, frozen=True):
    """Keys of ``model.yaml``, all of them optional.

    ``preprocessing`` and ``postprocessing`` are free mappings; the former's ``where`` says who does it. ``labels`` maps an
    output to the file below ``assets/`` that lists its classes (``labels.txt`` is the model's own and needs no mention);
    with ``labels_extensible`` clients are told to expect classes they do not know. ``meaning`` says in words what an input
    or output holds. ``state`` maps an output to the input it is fed to in the next call. ``inference_params`` are the
    keys of ``params.yaml`` that act when the model is called; one names all below it, too.
    """

    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    postprocessing: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    labels_extensible: bool = False
    meaning: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    inference_params: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Who prepares the inputs; the client, unless the card says otherwise."""
        return str(self.preprocessing.get("where", WHERE[0]))

    def to_dict(self) -> dict[str, Any]:
        mappings = ("preprocessing", "postprocessing", "labels", "meaning", "state")
        out: dict[str, Any] = {key: dict(getattr(self, key)) for key in mappings if getattr(self, key)}
        if self.labels_extensible:
            out["labels_extensible"] = True
        if self.inference_params:
            out["inference_params"] = list(self.inference_params)
        return out

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str) -> Meaning:
        """Reads its own keys out of a card's. Raises InvalidYaml."""
        extensible = value.get("labels_extensible", False)
        if not isinstance(extensible, bool):
            raise yamlio.InvalidYaml(f"{where}: labels_extensible must be true or false", hint="mend the card")
        free = {key: _free(value.get(key, {}), f"{where}: {key}") for key in ("preprocessing", "postprocessing")}
        if (who := free["preprocessing"].get("where", WHERE[0])) not in WHERE:
            raise yamlio.InvalidYaml(f"{where}: preprocessing.where is {who!r}", hint=f"it is {' or '.join(WHERE)}")
        texts = {key: _texts(value.get(key, {}), f"{where}: {key}") for key in ("labels", "meaning", "state")}
        for output, path in texts["labels"].items():
            _check_path(path, f"{where}: labels.{output}")
        if len(set(texts["state"].values())) != len(texts["state"]):
            raise yamlio.InvalidYaml(f"{where}: state names an input twice", hint="one output feeds one input")
        params = value.get("inference_params", [])
        if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
            raise yamlio.InvalidYaml(f"{where}: inference_params must be a list of names", hint="such as [temperature]")
        return cls(**free, **texts, labels_extensible=extensible, inference_params=tuple(params))


def _texts(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise yamlio.InvalidYaml(f"{where} must map names to texts", hint="quote them")
    return value


def _check_path(path: str, where: str) -> None:
    try:
        inside(path)
    except ValueError as error:
        raise yamlio.InvalidYaml(f"{where}: {error}", hint="name a file below assets/") from None


def _free(value: Any, where: str) -> dict[str, Any]:
    """A mapping that says what it likes, in texts, finite numbers, flags, lists and mappings. Raises InvalidYaml."""
    if not isinstance(value, dict):
        raise yamlio.InvalidYaml(f"{where} must be a mapping", hint="such as {mean: [0.5], std: [0.25]}")
    _check_plain(value, where)
    return value


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, held in value.items():
            if not isinstance(key, str):
                raise yamlio.InvalidYaml(f"{where} has a key {key!r} that is no text", hint="quote it")
            _check_plain(held, f"{where}.{key}")
    elif isinstance(value, list):
        for number, held in enumerate(value):
            _check_plain(held, f"{where}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise yamlio.InvalidYaml(f"{where} is no finite number", hint="mend the card")
