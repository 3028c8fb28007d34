"""The server that serving.py holds gitmodel's against: the same protocol, runtime and libraries with nothing around them.

`python bare_app.py MODEL` serves one ONNX model as JSON, with `--binary` its one float32 input and output as bytes, with
`--copy-free` the same without uvicorn and without a copy; `python bare_app.py --echo` sends bodies back. Each prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import numpy as np
import orjson
import uvicorn
import uvloop

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

#: Bytes for a whole request.
_ROOM = 4 << 20
_LENGTHS = (b"content-length", b"inference-header-content-length")
_DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}


class Tensor(msgspec.Struct):
    """An input of a call, as the Open Inference Protocol has it."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(msgspec.Struct):
    """A call."""

    inputs: list[Tensor]


def model_app(path: str) -> App:
    """Decodes, runs, encodes: no routes, no checks, no versions, no headers of its own."""
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    decode = msgspec.json.Decoder(Request).decode

    async def app(_: dict[str, Any], receive: Receive, send: Send) -> None:
        request = decode(await read(receive))
        inputs = {t.name: np.array(t.data, np.float32).reshape(t.shape) for t in request.inputs}
        outputs = [
            {"name": name, "datatype": _DATATYPES[value.dtype], "shape": value.shape, "data": value.reshape(-1)}
            for name, value in zip(names, session.run(names, inputs), strict=True)
        ]
        await answer(send, orjson.dumps({"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY))

    return app


def binary_app(path: str) -> App:
    """The least that can be done for a tensor that comes and goes as bytes: they are joined, looked at where they are,
    and the output is sent from where the runtime put it. The JSON before them is not even read."""
    session = open_session(path)
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    names = [wanted.name]

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = await read(receive)
        start = int(dict(scope["headers"])[b"inference-header-content-length"])
        values = session.run(names, {given.name: np.frombuffer(body, np.float32, offset=start).reshape(1, -1)})[0]
        parameters = {"binary_data_size": values.nbytes}
        output = {"name": wanted.name, "datatype": "FP32", "shape": values.shape, "parameters": parameters}
        head = orjson.dumps({"outputs": [output]})
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"inference-header-content-length", str(len(head)).encode()),
            (b"content-length", str(len(head) + values.nbytes).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": head, "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(values).cast("B")})

    return app


class CopyFree(asyncio.BufferedProtocol):
    """The least that can be done for a tensor that comes and goes as bytes, with no framework and no copy: the kernel puts it where the
    runtime reads it, and takes the output from where the runtime put it. One request at a time, all of one head; the JSON in them
    is not even read."""

    def __init__(self, session: Any) -> None:
        (given,), (wanted,) = session.get_inputs(), session.get_outputs()
        self._session, self._given, self._wanted = session, given.name, wanted.name
        self._buffer = bytearray(_ROOM)
        self._begin = self._end = self._total = self._tensor = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def get_buffer(self, _: int) -> memoryview:
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, size: int) -> None:
        self._end += size
        if not self._total and (body := self._buffer.find(b"\r\n\r\n", self._begin, self._end) + 4) >= 4:
            head = bytes(self._buffer[self._begin : body]).lower()
            length, lead = (int(head.partition(b"\r\n" + key + b": ")[2].partition(b"\r")[0]) for key in _LENGTHS)
            self._total, self._tensor = body + length, body + lead
        if self._total and self._end == self._total:
            self._answer()
            # The next one's tensor lies as tensors should.
            self._begin = self._end = -(self._tensor - self._begin) % 64
            self._total = 0

    def _answer(self) -> None:
        row = np.frombuffer(self._buffer, np.float32, (self._total - self._tensor) // 4, self._tensor).reshape(1, -1)
        values = self._session.run([self._wanted], {self._given: row})[0]
        output = {
            "name": self._wanted,
            "datatype": "FP32",
            "shape": values.shape,
            "parameters": {"binary_data_size": values.nbytes},
        }
        head = orjson.dumps({"outputs": [output]})
        lines = (
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
            f"inference-header-content-length: {len(head)}\r\ncontent-length: {len(head) + values.nbytes}\r\n\r\n"
        )
        self._transport.writelines([lines.encode() + head, memoryview(values).cast("B")])


async def serve_copy_free(path: str, listener: socket.socket) -> None:
    session = open_session(path)
    server = await asyncio.get_running_loop().create_server(lambda: CopyFree(session), sock=listener)
    await server.serve_forever()


def open_session(path: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


async def echo(_: dict[str, Any], receive: Receive, send: Send) -> None:
    """What uvicorn itself costs."""
    await answer(send, await read(receive))


async def read(receive: Receive) -> bytes:
    message = await receive()
    parts: list[bytes] = [message["body"]]
    while message["more_body"]:
        message = await receive()
        parts.append(message["body"])
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", help="an ONNX file")
    parser.add_argument("--binary", action="store_true", help="take and give one float32 tensor as bytes")
    parser.add_argument("--copy-free", action="store_true", help="the same without a framework and without a copy")
    parser.add_argument("--echo", action="store_true", help="send bodies back instead")
    options = parser.parse_args()
    if bool(options.model) == options.echo:
        parser.error("give a model or --echo")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        if options.copy_free:
            uvloop.run(serve_copy_free(options.model, listener))
            return
        app = echo if options.echo else (binary_app if options.binary else model_app)(options.model)
        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", lifespan="off",
            log_level="warning", access_log=False, server_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
