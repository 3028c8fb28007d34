"""The same models in other formats: ONNX with external data, HDF5, safetensors, a file per tensor. Never whole in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from chain import GRAPH, INITIALIZER, Chain, graph, model, opening


def write_external(folder: Path, chain: Chain, version: int = 1) -> Path:
    """``model.onnx`` and ``model.data``; returns the graph."""
    from onnx import StringStringEntryProto, TensorProto

    heads = []
    for index in range(chain.count):
        where = {"location": "model.data", "offset": str(index * chain.tensor), "length": str(chain.tensor)}
        tensor = TensorProto(
            dims=[chain.side, chain.side],
            data_type=TensorProto.FLOAT,
            name=f"layer{index}.weight",
            data_location=TensorProto.EXTERNAL,
            external_data=[StringStringEntryProto(key=key, value=value) for key, value in where.items()],
        ).SerializeToString()
        heads.append(opening(INITIALIZER, len(tensor)) + tensor)
    nodes, ends = graph(chain)
    first, last = model()
    body = nodes + b"".join(heads) + ends
    (folder / "model.onnx").write_bytes(first + opening(GRAPH, len(body)) + body + last)
    with (folder / "model.data").open("wb") as file:
        for _, values in chain.tensors(version):
            file.write(values.data)
    return folder / "model.onnx"


def write_hdf5(folder: Path, chain: Chain, version: int = 1) -> Path:
    """``model.h5``: a contiguous dataset per tensor."""
    import h5py

    with h5py.File(folder / "model.h5", "w", libver="latest") as file:
        for name, values in chain.tensors(version):
            file.create_dataset(name, data=values)
    return folder / "model.h5"


def write_safetensors(folder: Path, chain: Chain, version: int = 1) -> Path:
    """``model.safetensors``. Source of the layout: the format section of safetensors' README."""
    header = {
        f"layer{index}.weight": {
            "dtype": "F32",
            "shape": [chain.side, chain.side],
            "data_offsets": [index * chain.tensor, (index + 1) * chain.tensor],
        }
        for index in range(chain.count)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, values in chain.tensors(version):
            file.write(values.data)
    return folder / "model.safetensors"


def write_split(folder: Path, chain: Chain, version: int = 1) -> Path:
    """``tensors/``, a raw file per tensor."""
    (folder / "tensors").mkdir()
    for name, values in chain.tensors(version):
        (folder / "tensors" / f"{name}.bin").write_bytes(values.data)
    return folder / "tensors"


#: By the words the tables use.
FORMATS: dict[str, Callable[[Path, Chain, int], Path]] = {
    "ONNX, external data": write_external,
    "HDF5": write_hdf5,
    "safetensors": write_safetensors,
}
