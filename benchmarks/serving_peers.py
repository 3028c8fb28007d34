"""The peers of serving.py as data: where each comes from and how it is started with a model; and the start itself."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from peer_commands import Part
from peer_installs import installed
from served import Server, started

_SERVERS = Path(__file__).resolve().parent / "peer_servers"
#: The runtime is everywhere the one that gitmodel has here.
_RUNTIME = f"onnxruntime=={metadata.version('onnxruntime')}"


@dataclass(frozen=True)
class Peer:
    """``packages`` are those whose versions are told. ``script`` of peer_servers is run by the Python of ``part`` with the
    model, a port, a folder of its own and ``more``."""

    name: str
    part: Part
    script: str
    packages: tuple[str, ...]
    more: tuple[str, ...] = ()


_KSERVE = Part("kserve", packages=("kserve", _RUNTIME))
# Its worker processes ask for an event loop where there is none, which uvloop refuses from 0.22 on.
_MLSERVER = Part("mlserver", "mlserver", packages=("mlserver", "uvloop<0.22", _RUNTIME))
# The stubs of its Python backend look for the library of the distribution's Python, which others come without.
_TRITON = Part("triton", packages=("nvidia-pytriton", _RUNTIME), interpreter="/usr/bin/python3")

PEERS = (
    Peer("triton", _TRITON, "triton_server.py", ("nvidia-pytriton", "onnxruntime")),
    Peer("kserve", _KSERVE, "kserve_server.py", ("kserve", "onnxruntime")),
    Peer("mlserver-inside", _MLSERVER, "mlserver_server.py", ("mlserver", "onnxruntime"), ("0",)),
    Peer("mlserver", _MLSERVER, "mlserver_server.py", ("mlserver", "onnxruntime")),
)


@contextlib.contextmanager
def serving(
    peer: Peer, model: Path, request: Path, folder: Path, place: Path, env: Mapping[str, str]
) -> Iterator[tuple[Server, str]]:
    """A peer that answers, installed below ``place`` if it is not there yet, and in words what is installed. Raises
    peer_installs.Missing, measure.Failed."""
    python, port = installed(peer.part, place, env) / "python", _free_port()
    argv = [python, _SERVERS / peer.script, model, port, folder / peer.name, *peer.more]
    with started(peer.name, [*map(str, argv)], request, env, port=port) as server:
        yield server, _versions(peer, python, env)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _versions(peer: Peer, python: Path, env: Mapping[str, str]) -> str:
    program = (
        "import sys; from importlib.metadata import version; "
        "print(*(f'{name} {version(name)}' for name in sys.argv[1:]), sep=', ')"
    )
    done = subprocess.run([python, "-c", program, *peer.packages], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()
