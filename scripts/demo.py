"""The demo's story: each step runs the real commands a team would type, and shows the lines a person would look at."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BIN = Path(sys.executable).parent
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
CLIENTS, PAUSE = 4, 0.004


def paint(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def step(title: str) -> None:
    print(f"\n{paint(title, '1')}", flush=True)


def show(text: str) -> None:
    print(f"   {text}", flush=True)


@dataclass
class Team:
    """The folders of the story: where the author works, the bare production repository, the store for weights."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "gitconfig").write_text(
            "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n"
        )
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
        # Nothing of the user's own Git or DVC configuration is read or written.
        self.environment = kept | {
            "GIT_CONFIG_GLOBAL": str(self.root / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(self.root / "dvc"),
            "DVC_SYSTEM_CONFIG_DIR": str(self.root / "dvc"),
            "DVC_SITE_CACHE_DIR": str(self.root / "dvc"),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore",
        }

    @property
    def author(self) -> Path:
        return self.root / "author"

    @property
    def production(self) -> Path:
        return self.root / "production.git"

    def run(self, command: str, *, fails: bool = False, quiet: bool = False) -> list[str]:
        """Runs a command in the author's repository, shows it, and returns its lines. Stops the story when it surprises."""
        if not quiet:
            show(paint(f"$ {command}", "36"))
        done = subprocess.run(
            shlex.split(command), cwd=self.author, env=self.environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if (done.returncode != 0) != fails:
            raise SystemExit(f"'{command}' returned {done.returncode}:\n{done.stdout}")
        return done.stdout.splitlines()


@dataclass
class Traffic:
    """A steady stream of requests by plain HTTP clients; every answer is kept with its time and version."""

    url: str
    body: bytes
    truth: dict[str, float] = field(default_factory=dict)
    answers: list[tuple[float, int, str, float]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1)
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        while not self._stop.is_set():
            try:
                status, version, sure, _ = ask(connection, self.body)
            except OSError:
                status, version, sure = 0, "", 0.0
                connection.close()
            self.answers.append((time.monotonic(), status, version, sure))
            time.sleep(PAUSE)
        connection.close()

    def failed(self) -> int:
        """Requests without a good answer, or whose version and numbers do not belong together."""
        mixed = [
            v for _, status, v, sure in self.answers if status == 200 and abs(self.truth.get(v, sure) - sure) > 1e-4
        ]
        return sum(status != 200 for _, status, _, _ in self.answers) + len(mixed)

    def summary(self, since: float) -> str:
        counts = Counter(version for _, _, version, _ in self.answers)
        start = min(at for at, *_ in self.answers)
        new = self.answers[-1][2]
        first = min(at for at, _, version, _ in self.answers if version == new)
        seconds = self.answers[-1][0] - start
        split = ", ".join(f"{version} gave {count:,}" for version, count in sorted(counts.items()))
        return (
            f"meanwhile {len(self.answers):,} requests in {seconds:.1f} s: {self.failed()} failed; {split}; "
            f"{new} answers since {first - since:.1f} s after the command began"
        )


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, str, float, int]:
    """(status, version that answered, its largest probability, its label) of one Open Inference Protocol call."""
    connection.request("POST", "/v2/models/digits/infer", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    value = json.loads(answer.read())
    if answer.status != 200:
        return answer.status, value["error"], 0.0, -1
    outputs = {tensor["name"]: tensor["data"] for tensor in value["outputs"]}
    return 200, str(answer.headers["gitmodel-version"]), max(outputs["probabilities"]), outputs["label"][0]


def main() -> None:
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="gitmodel-demo-"))
    root.mkdir(parents=True, exist_ok=True)
    if list(root.iterdir()):
        raise SystemExit(f"{root} is not empty: name a new folder")
    began = time.monotonic()
    team = Team(root)
    print(paint("gitmodel demo: handwritten digits, from a training script to a served model, through Git", "1"))
    server: subprocess.Popen[str] | None = None
    try:
        digits = train(team)
        release_first(team)
        server, url = serve(team)
        ask_once(url, digits)
        swap(team, url, digits)
        refuse_break(team)
        refuse_broken(team, digits)
        roll_back(team, url, digits)
    finally:
        if server is not None:
            server.terminate()
            server.wait()
    farewell(team, time.monotonic() - began)


def train(team: Team) -> dict[str, Any]:
    """The models of the story as ONNX files, with their metrics, and the held-out rows."""
    import numpy as np
    import skl2onnx
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels.astype("float32")
    known, held_out, known_labels, held_out_labels = train_test_split(pixels, labels, test_size=0.25, random_state=0)
    step(f"1. Train on {len(known):,} images of 8 x 8 pixels, keep {len(held_out)} back")
    work = team.root / "training"
    work.mkdir()

    def fit(
        name: str, estimator: Any, params: dict[str, Any], *, input_name: str = "pixels", sideways: bool = False
    ) -> float:
        order = np.arange(64).reshape(8, 8).T.reshape(-1) if sideways else np.arange(64)
        pipeline = make_pipeline(StandardScaler(), estimator).fit(known[:, order], known_labels)
        accuracy = float(pipeline.score(held_out[:, order], held_out_labels))
        kind = [(input_name, skl2onnx.common.data_types.FloatTensorType([None, 64]))]
        model = skl2onnx.to_onnx(pipeline, initial_types=kind, options={"zipmap": False}, target_opset=21)
        (work / f"{name}.onnx").write_bytes(model.SerializeToString())
        (work / f"{name}-params.yaml").write_text("".join(f"{key}: {value}\n" for key, value in params.items()))
        (work / f"{name}-metrics.yaml").write_text(f"accuracy: {accuracy:.4f}\n")
        return accuracy

    network: dict[str, Any] = {"hidden_layer_sizes": (256,), "max_iter": 60, "random_state": 0}
    told = {"model": "MLPClassifier", "hidden": 256, "max_iter": 60}
    first = fit(
        "v1", LogisticRegression(C=0.05, max_iter=200), {"model": "LogisticRegression", "C": 0.05, "max_iter": 200}
    )
    second = fit("v2", MLPClassifier(**network), told)
    fit("v3", MLPClassifier(**network), told, input_name="image")
    fourth = fit("v4", MLPClassifier(**network), told, input_name="image", sideways=True)
    show(f"v1, logistic regression: {first:.1%} right        v2, neural network: {second:.1%} right")
    np.savez(work / "cases.npz", pixels=held_out[:16])
    np.savez(work / "cases-image.npz", image=held_out[:16])
    (work / "labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
    row, answer = held_out[20], int(held_out_labels[20])
    body = json.dumps(
        {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": row.tolist()}]}
    ).encode()
    return {"body": body, "answer": answer, "row": row, "fourth": fourth}


def save(team: Team, name: str, message: str, *, golden: str = "") -> None:
    options = f"--params ../training/{name}-params.yaml --metrics ../training/{name}-metrics.yaml"
    golden_option = f" --golden ../training/{golden}" if golden else ""
    labels = " --labels ../training/labels.txt" if name == "v1" else ""
    command = f'gitmodel save digits ../training/{name}.onnx {options}{labels}{golden_option} -m "{message}"'
    show(
        paint(f'$ gitmodel save digits {name}.onnx ...{golden_option.replace("../training/", "")} -m "{message}"', "36")
    )
    said = team.run(command, quiet=True)[0]
    if name in ("v1", "v2"):
        show(said)


def release_first(team: Team) -> None:
    step("2. Save as a bundle, commit, release: a version is a Git tag, its weights travel through a DVC remote")
    (team.root / "storage").mkdir()
    for command in ("git init -q author", "git init -q --bare production.git"):
        subprocess.run(shlex.split(command), cwd=team.root, env=team.environment, check=True)
    for command in (
        f"gitmodel init --remote {team.root / 'storage'}",
        'git commit -q -m "Set up gitmodel"',
        f"git remote add production {team.production}",
        f"gitmodel hooks install --server --repo {team.production}",
    ):
        team.run(command, quiet=True)
    save(team, "v1", "Logistic regression", golden="cases.npz")
    show(team.run("gitmodel release digits --push production")[0])


def serve(team: Team) -> tuple[subprocess.Popen[str], str]:
    step("3. Start a server on the bare production repository and ask it with a plain HTTP client")
    show(paint("$ gitmodel serve --repo production.git --port 0", "36"))
    server = subprocess.Popen(
        [str(BIN / "gitmodel"), "serve", "--repo", str(team.production), "--port", "0"],
        env=team.environment, text=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert server.stderr is not None
    url = ""
    for line in server.stderr:
        if " on http://" in line:
            url = line.split(" on ")[1].split()[0]
        if "AVAILABLE" in line or "END" in line:
            show(line.strip())
            break
    # The pipe must go on being read, or a full one would stop the server.
    threading.Thread(target=lambda: server.stderr.read() if server.stderr else None, daemon=True).start()
    return server, url


def ask_once(url: str, digits: dict[str, Any]) -> None:
    for line in picture(digits["row"]):
        show(f"   {line}")
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    _, version, sure, label = ask(connection, digits["body"])
    digits["truth"] = {version: sure}
    show(f"a held-out {digits['answer']}: {version} reads {label} ({sure:.1%} sure)")
    connection.close()


def picture(row: Any) -> list[str]:
    """The image in four lines of half blocks."""
    ink = row.reshape(8, 8) > 7
    return [
        "".join(" ▄▀█"[int(low) + 2 * int(high)] for high, low in zip(ink[i], ink[i + 1], strict=True))
        for i in (0, 2, 4, 6)
    ]


def swap(team: Team, url: str, digits: dict[str, Any]) -> None:
    step("4. v2 is better. Release it while requests stream in: nobody may notice but by the answers")
    save(team, "v2", "Neural network", golden="cases.npz")
    with Traffic(url, digits["body"], digits["truth"]) as traffic:
        since = time.monotonic()
        lines = team.run("gitmodel release digits --push production")
        for line in lines:
            if line.startswith(("COMPATIBLE", "remote: gitmodel")):
                show(line.strip())
    show(traffic.summary(since))
    if traffic.failed():
        raise SystemExit("a request failed: that must not happen")


def refuse_break(team: Team) -> None:
    step("5. v3 is the same network, but somebody renamed its input")
    save(team, "v3", "Rename the input", golden="cases-image.npz")
    for line in team.run("gitmodel check-compat", fails=True):
        if not any(part in line for part in ("goldens-changed", "rules,")):
            show(line)
    show(team.run("gitmodel release digits minor", fails=True)[-1])
    lines = team.run("gitmodel release digits major --push production")
    show("; ".join(line.strip() for line in lines if line.startswith(("digits@", "remote: gitmodel"))))


def refuse_broken(team: Team, digits: dict[str, Any]) -> None:
    step(
        f"6. v4 read its training images column by column; so did its test ({digits['fourth']:.1%}); its author skips the gate"
    )
    save(team, "v4", "Retrained, in a hurry")
    show(team.run("gitmodel release digits", fails=True)[-1])
    team.run("git tag -a digits@v2.0.1 -m Hurry")
    team.run("gitmodel push", quiet=True)
    for line in team.run("git push production main digits@v2.0.1"):
        if line.startswith("remote: gitmodel"):
            show(line.strip())


def roll_back(team: Team, url: str, digits: dict[str, Any]) -> None:
    step("7. Clients have not followed to 'image' yet: put production back on v1.1.0 by moving a stage")
    for line in team.run("gitmodel promote digits@v1.1.0 prod --push production"):
        if line.startswith("remote: gitmodel"):
            show(line.strip())
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    status, version, sure, label = ask(connection, digits["body"])
    connection.close()
    if status != 200:
        raise SystemExit(f"the server answers {status}: {version}")
    show(f"the same question again: {version} reads {label} ({sure:.1%} sure)")


def farewell(team: Team, seconds: float) -> None:
    step(f"Done in {seconds:.0f} s; the server is stopped, the folders stay: {team.root}")
    show("author/          a model repository: gitmodel log digits, gitmodel show digits@v1.1.0, dvc status")
    show("production.git/  bare, with hooks: gitmodel serve --repo production.git, then push to it")
    show(f"the commands are in {BIN}: export PATH={BIN}:$PATH")


if __name__ == "__main__":
    main()
