"""The server that serving.py holds gitmodel's against: the same protocol, runtime and libraries with nothing around them.

`python bare_app.py MODEL` serves one ONNX model as JSON, with `--binary` its one float32 input and output as bytes;
`python bare_app.py --echo` sends bodies back. Each prints its port.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import numpy as np
import orjson
import uvicorn

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

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
    parser.add_argument("--echo", action="store_true", help="send bodies back instead")
    options = parser.parse_args()
    if bool(options.model) == options.echo:
        parser.error("give a model or --echo")
    app = echo if options.echo else (binary_app if options.binary else model_app)(options.model)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="off",
        log_level="warning", access_log=False, server_header=False, timeout_keep_alive=75,
    )  # fmt: skip
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
