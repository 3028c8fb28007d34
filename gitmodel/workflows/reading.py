"""Which one model the files, or the object, given to ``save`` make: graphs, weights and shards brought together."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from gitmodel import formats
from gitmodel.bundle.signature import DEFAULT
from gitmodel.errors import GitmodelError
from gitmodel.formats import source as sources
from gitmodel.formats.source import Source
from gitmodel.versions import check_name

if TYPE_CHECKING:
    from gitmodel.formats.memory import Model


#: As libraries that write safetensors name shards.
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")


class UnclearFiles(GitmodelError):
    """The files given do not make one model."""

    code = "unclear-files"


class Given(Struct, frozen=True, dict=True):
    """``files`` in the caller's order, or a ``model`` that is none; ``weights`` for a graph's names; ``signatures`` maps names to the
    graphs of further ones; ``example`` are inputs for what has to be converted."""

    files: tuple[Path, ...]
    model: object = None
    weights: Path | None = None
    signatures: tuple[tuple[str, Path], ...] = ()
    example: object = None

    @classmethod
    def of(
        cls,
        model: Model,
        weights: Path | str | None = None,
        signatures: Mapping[str, Path | str] | None = None,
        example: object = None,
    ) -> Given:
        """Raises InvalidName, UnclearFiles."""
        named = tuple((check_name(name, "signature"), Path(file)) for name, file in (signatures or {}).items())
        if any(name == DEFAULT for name, _ in named):
            raise UnclearFiles(f"'{DEFAULT}' is the model's own signature", hint="give the others another name")
        several = isinstance(model, Sequence) and not isinstance(model, str | bytes)
        listed = list(model) if isinstance(model, Sequence) and several else [model]
        if not listed:
            raise UnclearFiles("no file was given", hint="name the model's file")
        files = tuple(Path(item) for item in listed if isinstance(item, str | Path))
        if len(files) == len(listed):
            return cls(files, None, Path(weights) if weights else None, named, example)
        if several:
            raise UnclearFiles("a list may name files only", hint="give one object, or the files of one model")
        return cls((), model, Path(weights) if weights else None, named, example)

    @property
    def paths(self) -> list[Path]:
        """Every file that was named."""
        return [*self.files, *([self.weights] if self.weights else []), *(file for _, file in self.signatures)]

    @property
    def key(self) -> list[str]:
        """What the caller asked for, as text that differs where it does; empty for an object, which has no such."""
        if self.model is not None:
            return []
        # A link and the file it leads to: external data stand beside the one, its bytes are the other's.
        named = [f"{name}={file.absolute()} {file.resolve()}" for name, file in self.signatures]
        weights = f"weights={self.weights.absolute()} {self.weights.resolve()}" if self.weights else ""
        return [*(f"{file.absolute()} {file.resolve()}" for file in self.files), weights, *named]

    @property
    def label(self) -> str:
        if self.files:
            return str(self.files[0])
        from gitmodel.formats import memory

        return memory.label(self.model)

    @contextlib.contextmanager
    def open(self) -> Iterator[Source]:
        """The one model; the user's files are let go of at the end. Raises InvalidModel, UnclearFiles and kin."""
        _refuse_lone_shards([*self.files, *([self.weights] if self.weights else [])])
        with contextlib.ExitStack() as stack:

            def read(path: Path) -> Source:
                return stack.enter_context(contextlib.closing(formats.read(path)))

            parts = [(str(path), read(path)) for path in self.files] or [(self.label, self._source)]
            if self.weights:
                parts.append((str(self.weights), read(self.weights)))
            main = _one(parts)
            checkpoints = [(where, source) for where, source in parts if source.graph is None]
            others = {name: _further((str(file), read(file)), checkpoints) for name, file in self.signatures}
            if others:
                from gitmodel.formats import signatures

                main = signatures.join(main, others)
            yield main

    def convert(self) -> None:
        """Turns an object into a source, which may take minutes; ``open`` does it otherwise. Raises InvalidModel,
        MissingConverter, ConversionFailed."""
        if self.model is not None:
            self._source  # noqa: B018  # made here, kept for ``open``

    @cached_property
    def _source(self) -> Source:
        from gitmodel.formats import memory

        return memory.of(self.model, example=self.example)


def _refuse_lone_shards(files: Sequence[Path]) -> None:
    """One shard reads like a whole checkpoint; its name alone says that there are others. Raises UnclearFiles."""
    given = {file.name for file in files}
    for file in files:
        if not (named := _SHARD.fullmatch(file.name)):
            continue
        stem, number, total = named.groups()
        alike = re.compile(rf"{re.escape(stem)}-\d+-of-{total}\.safetensors")
        if len([name for name in given if alike.fullmatch(name)]) < int(total):
            all_ = (f"{stem}-{n:0{len(number)}}-of-{total}.safetensors" for n in range(1, int(total) + 1))
            raise UnclearFiles(
                f"{file} is one shard of {int(total)}, and {next(name for name in all_ if name not in given)} is not given",
                hint=f"give {file.with_name(f'{stem}.safetensors.index.json')}, or all the shards",
            )


def _further(graph: tuple[str, Source], checkpoints: Sequence[tuple[str, Source]]) -> Source:
    """One more graph, with the weights that were given for the first where it has none of its own."""
    from gitmodel.formats import binding

    return _one([graph, *checkpoints] if graph[1].graph is not None and not binding.is_complete(graph[1]) else [graph])


def _one(parts: Sequence[tuple[str, Source]]) -> Source:
    """A graph with all its weights, or a checkpoint. Raises UnclearFiles, InvalidModel."""
    graphs = [(where, source) for where, source in parts if source.graph is not None]
    checkpoints = [source for _, source in parts if source.graph is None]
    if len(checkpoints) > 1:
        checkpoints = [sources.join(checkpoints)]
    if len(graphs) > 1 or not parts:
        raise UnclearFiles(
            f"{len(graphs)} graphs do not make one model", hint="give one .onnx, one checkpoint, or one of each"
        )
    if not graphs:
        return checkpoints[0]
    from gitmodel.formats import binding

    where, graph = graphs[0]
    return binding.bind(graph, checkpoints[0], where) if checkpoints else binding.complete(graph, where)
