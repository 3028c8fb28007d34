"""Writes docs/unhappy.md: what goes wrong, the command a person types, what it prints and the exit code, all from real runs.

scripts/unhappy.py            runs every path and writes the page
scripts/unhappy.py --check    runs every path; exit code 1 when the page says something else
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from transcripts import Shell, form

BAD_INPUTS = Path(__file__).resolve().parent.parent / "tests" / "compat" / "bad_inputs.py"
#: What stands over the bad files of security.md.
UNTRUSTED = "check-compat: files nobody should trust"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "unhappy.md"


@dataclass(frozen=True)
class Mishap:
    """One row: ``setup`` prepares a fresh copy of the repository unseen, ``command`` is what the page shows."""

    what: str
    command: str
    setup: str = ""
    #: A second thing to look at, shown in a row of its own: (what, command).
    after: tuple[tuple[str, str], ...] = ()


#: The models of the page: a linear one, one that differs, one with another input, one for a newer runtime, a large one.
_MODELS = """
import sys, numpy as np, onnx
from onnx import helper, numpy_helper

def model(path, scale=1.0, width=4, name="x", ir=10, opset=21):
    random = np.random.default_rng(0)
    weights = {"weight": (random.normal(size=(width, 3)) * scale).astype("float32")}
    nodes = [helper.make_node("MatMul", [name, "weight"], ["scores"])]
    graph = helper.make_graph(nodes, "graph",
        [helper.make_tensor_value_info(name, 1, ["batch", width])],
        [helper.make_tensor_value_info("scores", 1, ["batch", 3])],
        [numpy_helper.from_array(value, key) for key, value in weights.items()])
    made = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
    with open(path, "wb") as file:
        file.write(made.SerializeToString())

model("fraud.onnx"); model("other.onnx", scale=1.3); model("third.onnx", scale=1.7); model("renamed.onnx", name="features")
model("newer.onnx", ir=99); model("opset.onnx", opset=99); model("large.onnx", width=5_000_000)
rows = np.random.default_rng(1).normal(size=(16, 4)).astype("float32")
np.savez("cases.npz", x=rows); np.savez("features.npz", features=rows)
np.savez("strange.npz", y=np.zeros((2, 4), "float32"))
"""

_BASE = """
mkdir files storage
cd files
python ../models.py
cd ..
git init -q shop
cd shop
gitmodel init -q --remote ~/storage
git commit -q -m "Set up gitmodel"
gitmodel save -q fraud ../files/fraud.onnx --golden ../files/cases.npz -m "First" --release auto >/dev/null
gitmodel push -q
cd ..
"""

#: The section that goes on after the table below.
LAST = "The server"
PATHS = (
    "Where you are",
    Mishap("Not a Git repository", "gitmodel list", "mkdir ../plain && cd ../plain"),
    Mishap("A folder that is not there", "gitmodel list --repo ../nowhere"),
    Mishap(
        "A Git repository without `gitmodel init`",
        "gitmodel save fraud ../files/fraud.onnx",
        "rm -rf ../plain && git init -q ../plain && cd ../plain",
    ),
    Mishap(
        "A bare repository, for a verb that writes models",
        "gitmodel save fraud ../files/fraud.onnx --repo ../bare.git",
        "rm -rf ../bare.git && git init -q --bare ../bare.git",
    ),
    Mishap("Git does not know your name", "gitmodel save fraud ../files/other.onnx -m Two",
          "git config user.useConfigOnly true; export GIT_CONFIG_GLOBAL=/dev/null"),
    Mishap("Another Git process at work (or a stale lock)", "gitmodel save fraud ../files/other.onnx -m Two",
          "touch .git/index.lock"),
    "The model file",
    Mishap("No such file", "gitmodel save fraud nowhere.onnx"),
    Mishap("An empty file", "gitmodel save fraud empty.onnx", ": > empty.onnx"),
    Mishap("A truncated file", "gitmodel save fraud short.onnx", "head -c 60 ../files/fraud.onnx > short.onnx"),
    Mishap(
        "Random bytes",
        "gitmodel save fraud random.onnx",
        "python -c \"import random; open('random.onnx', 'wb').write(random.Random(1).randbytes(4096))\"",
    ),
    Mishap("Random bytes named HDF5", "gitmodel save fraud random.h5",
          "python -c \"import random; open('random.h5', 'wb').write(random.Random(1).randbytes(4096))\""),
    Mishap(
        "A Git LFS pointer",
        "gitmodel save fraud pointer.onnx",
        "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%064d\\nsize 12345\\n' 0 > pointer.onnx",
    ),
    Mishap("A DVC pointer", "gitmodel save fraud models/fraud/weights.dvc"),
    Mishap("A DVC pointer named as a model", "gitmodel save fraud pointer.onnx",
          "cp models/fraud/weights.dvc pointer.onnx"),
    Mishap("An ending nobody knows", "gitmodel save fraud model.pkl", "echo x > model.pkl"),
    Mishap("A model newer than the runtime (IR version)", "gitmodel save fraud ../files/newer.onnx"),
    Mishap("A model newer than the runtime (opset)", "gitmodel save fraud ../files/opset.onnx"),
    Mishap("Two graphs", "gitmodel save fraud ../files/fraud.onnx ../files/other.onnx"),
    Mishap("Golden cases for another model", "gitmodel save fraud ../files/other.onnx --golden ../files/strange.npz"),
    Mishap("Params that are no YAML", "gitmodel save fraud ../files/other.onnx --params p.yaml",
          "printf 'rate: 1\\nrate: 2\\n' > p.yaml"),
    "Names, versions, tags",
    Mishap("A name that cannot be a tag and a folder", "gitmodel save 'fraud model!' ../files/fraud.onnx"),
    Mishap("Saving the same again", "gitmodel save fraud ../files/fraud.onnx -m Again",
          after=(("... changes nothing", "git status --short"),)),
    Mishap("Releasing what is released", "gitmodel release fraud"),
    Mishap("A version that exists", "gitmodel release fraud v1.0.0",
          "gitmodel save -q fraud ../files/other.onnx --golden ../files/cases.npz -m Two"),
    Mishap("A version that goes back", "gitmodel release fraud v0.9.0",
          "gitmodel save -q fraud ../files/other.onnx --golden ../files/cases.npz -m Two"),
    Mishap("A bump that is none", "gitmodel release fraud huge",
          "gitmodel save -q fraud ../files/other.onnx --golden ../files/cases.npz -m Two"),
    Mishap("A bump that is too small", "gitmodel release fraud patch --quiet",
          "gitmodel save -q fraud ../files/renamed.onnx --golden ../files/features.npz -m Two"),
    Mishap("Changes that are not committed", "gitmodel release fraud", "gitmodel save -q fraud ../files/other.onnx"),
    Mishap("No such model", "gitmodel release froud"),
    Mishap("No such version", "gitmodel show fraud@v3.0.0"),
    Mishap("No such stage", "gitmodel show 'fraud#prod'"),
    Mishap("No such revision", "gitmodel show fraud@nowhere"),
    Mishap("A tag of a model that is not there, made with plain Git", "gitmodel list",
          "git tag -a ghost@v1.0.0 -m Ghost",
          after=(("... asked for by name", "gitmodel show ghost@v1.0.0"), ("... its log", "gitmodel log ghost"))),
    Mishap("A strange tag beside ours", "gitmodel log fraud", "git tag 'fraud@v1;id'; git tag 'fraud@vNext'"),
    Mishap("A lightweight tag as a release", "gitmodel log fraud", "git commit -q --allow-empty -m Two; git tag fraud@v1.0.1"),
    Mishap("Retrained, the old golden cases kept", "gitmodel release fraud --quiet",
          "gitmodel save -q fraud ../files/other.onnx -m Two"),
    "The working tree",
    Mishap("Checking out over uncommitted work", "gitmodel checkout fraud@v1.0.0", "echo 'licence: MIT' >> models/fraud/model.yaml"),
    Mishap("Checking out over an edited weight file", "gitmodel checkout fraud@v1.0.0",
          "chmod u+w models/fraud/weights/model.onnx; echo >> models/fraud/weights/model.onnx"),
    Mishap("A card with a typing mistake", "gitmodel show fraud", "echo 'licnece: MIT' >> models/fraud/model.yaml"),
    "Weights and remotes",
    Mishap("No DVC remote", "gitmodel push", "dvc remote remove -q storage"),
    Mishap("A remote that is not there", "gitmodel pull", "rm -rf .dvc/cache ~/gone; dvc remote modify -q storage url ~/gone"),
    Mishap("Weights missing from the remote", "gitmodel pull",
          "rm -rf .dvc/cache ~/other && cp -r ~/storage ~/other && dvc remote modify -q storage url ~/other"
          " && find ~/other -type f -size +100c -delete"),
    Mishap("Weights missing from the cache, on push", "gitmodel push",
          "rm -rf .dvc/cache ~/other && mkdir ~/other && dvc remote modify -q storage url ~/other"),
    Mishap("Other bytes in the remote than Git says", "gitmodel pull",
          "rm -rf .dvc/cache ~/other && cp -r ~/storage ~/other && dvc remote modify -q storage url ~/other && ../damage ~/other"),
    Mishap("A damaged object in the cache", "gitmodel push",
          "rm -rf ~/other && mkdir ~/other && dvc remote modify -q storage url ~/other && ../damage .dvc/cache"),
    "check-compat",
    Mishap("One side only, and nothing to compare with", "gitmodel check-compat --repo ../plain",
          "rm -rf ../plain && git init -q ../plain && gitmodel init -q --repo ../plain"),
    Mishap("A break", "gitmodel check-compat fraud@v1.0.0 ../files/renamed.onnx"),
    Mishap("A side that does not load", "gitmodel check-compat ../files/fraud.onnx ../files/newer.onnx"),
    Mishap("OLD and --against together", "gitmodel check-compat fraud --against main"),
    "Being killed",
    Mishap("Killed (`kill -9`) while `save` writes a 60 MB model", "../kill-in-the-middle gitmodel save big ../files/large.onnx -m Big",
          after=(("... what Git sees of it", "git status --short"), ("... the same again", "gitmodel save big ../files/large.onnx -m Big"),
                 ("... what was half written is left", "find .dvc/cache -name 'tmp-*'"),
                 ("... until a save an hour later", "find .dvc/cache -name 'tmp-*' -exec touch -d '2 hours ago' {} +;"
                  " gitmodel save big ../files/large.onnx; find .dvc/cache -name 'tmp-*'"), ("... and DVC agrees", "dvc status"))),
    LAST,
    Mishap("No server", "gitmodel status"),
    Mishap("A stage name that is none", "gitmodel serve --follow 'no stage'"),
    Mishap("Hooks of the wrong kind", "gitmodel hooks install --server"),
    Mishap("A secret that others can read", "gitmodel serve --notify 127.0.0.1:8001 --notify-secret secret",
           "printf %040d 7 >secret && chmod 644 secret"),
    Mishap("Pushing a tag while its weights cannot be sent", "git push -q backup fraud@v1.0.0",
           "gitmodel hooks install -q >/dev/null && git init -q --bare backup.git && git remote add backup backup.git"
           " && echo full >full && dvc remote modify -q storage url $PWD/full"),
)  # fmt: skip

_KILL = """#!/bin/sh
# Runs a command and kills it as soon as it is writing into the cache.
"$@" & child=$!
while [ -z "$(find .dvc/cache -name 'tmp-gitmodel-*' -size +1000k 2>/dev/null)" ]; do :; done
kill -9 $child; wait $child 2>/dev/null
"""

_DAMAGE = """#!/bin/sh
# Changes the bytes of every stored object below a folder, names, sizes and modes kept.
for file in $(find "$1" -type f ! -name '*.dir'); do
    chmod u+w "$file"; tr a-z b-za <"$file" >"$file.new"; mv "$file.new" "$file"; chmod 444 "$file"
done
"""

_ASK = '''"""Sends one request and prints the status and the answer."""
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1:8000", timeout=60)
body = sys.argv[3] if len(sys.argv) > 3 else None
connection.request(sys.argv[1], sys.argv[2], body, dict(text.split(": ") for text in sys.argv[4:]))
answer = connection.getresponse()
print(answer.status, answer.read().decode())
'''

_INFER = "/v2/models/fraud/infer"
#: What the server is asked: (what, method and path, body).
REQUESTS = (
    ("An unknown model", "GET /v2/models/ghost", ""),
    ("An unknown version", "GET /v2/models/fraud/versions/v7.0.0", ""),
    ("A wrong dtype", f"POST {_INFER}", '{"inputs":[{"name":"x","shape":[1,4],"datatype":"INT64","data":[1,2,3,4]}]}'),
    ("A wrong shape", f"POST {_INFER}", '{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'),
    ("Data that do not fit their shape", f"POST {_INFER}",
     '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3]}]}'),
    ("A wrong name", f"POST {_INFER}", '{"inputs":[{"name":"y","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'),
    ("An unknown output", f"POST {_INFER}",
     '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"z"}]}'),
    ("No JSON", f"POST {_INFER}", "hello"),
    ("The wrong verb", f"GET {_INFER}", ""),
    ("Loading, asked for on the data port", "POST /v2/repository/models/fraud/load", "{}"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    command: str
    printed: tuple[str, ...]
    code: str

    def text(self) -> str:
        printed = "<br>".join(_code(line) for line in self.printed) or "(nothing)"
        return f"| {self.what} | {_code(self.command)} | {printed} | {self.code} |"


def rows() -> Iterator[str | Row]:
    """The page's sections (text) and rows, each run in a repository of its own."""
    with tempfile.TemporaryDirectory(prefix="gitmodel-unhappy-") as home, Shell(Path(home).resolve()) as shell:
        shell.write("models.py", _MODELS)
        shell.write("kill-in-the-middle", _KILL)
        shell.write("damage", _DAMAGE)
        shell.write("ask.py", _ASK)
        shell.run(f"chmod +x kill-in-the-middle damage; set -e\n{_BASE}\nset +e")
        for path in PATHS:
            if isinstance(path, str):
                if path == LAST:
                    yield from _untrusted(shell)
                yield path
                continue
            shell.run(
                f"cd ~ && rm -rf case && cp -r shop case && cd case && git status --short >/dev/null\n{path.setup}"
            )
            for what, command in ((path.what, path.command), *path.after):
                yield _row(shell, what, command)
            shell.run('export GIT_CONFIG_GLOBAL="$HOME/gitconfig"')  # the one thing a path changes outside its copy
        yield from _served(shell)


def _untrusted(shell: Shell) -> Iterator[str | Row]:
    """What check-compat says of each bad file; its first lines, the rest are findings that say the same."""
    yield UNTRUSTED
    script = shlex.quote(str(BAD_INPUTS))
    found = [line.split(" ") for line in shell.run(f"cd ~ && rm -rf bad && python {script} bad && cd bad")]
    for name, file in found:
        yield _first_lines(shell, name, f"gitmodel check-compat good{Path(file).suffix} {file}")
    for name in shell.run(
        f"python -c 'import sys; sys.path[0]=\"{BAD_INPUTS.parent}\"; import bad_inputs; print(*bad_inputs.YAML)'"
    )[0].split():
        shell.run(
            f"cd ~ && rm -rf case && cp -r shop case && cd case && python {script} --yaml {name} models/fraud"
            " && git commit -qam Improve"
        )
        yield _first_lines(shell, f"{name}, committed", "gitmodel check-compat fraud@v1.0.0 fraud@HEAD")


def _first_lines(shell: Shell, name: str, command: str) -> Row:
    row = _row(shell, name.replace("-", " "), command)
    return replace(row, printed=row.printed[:2])


def _row(shell: Shell, what: str, command: str) -> Row:
    printed = shell.run(command)
    code = shell.run("echo $?")[-1]
    return Row(what, command.replace("../kill-in-the-middle ", ""), tuple(line for line in printed if line), code)


def _served(shell: Shell) -> Iterator[Row]:
    """What a running server says to mistakes: of the next server, of clients, of pushers."""
    shell.run(
        "cd ~ && git init -q --bare production.git && gitmodel hooks install --server --repo production.git && cd shop"
        " && git remote add production ~/production.git && git push -q production main fraud@v1.0.0"
    )
    shell.start("gitmodel serve --repo ~/production.git --port 8000", "AVAILABLE")
    yield _row(shell, "A port that is taken", "gitmodel serve --repo ~/production.git --port 8000")
    for what, request, body in REQUESTS:
        method, _, path = request.partition(" ")
        answer = " ".join(shell.run(f"python ~/ask.py {method} {path} {_quoted(body) if body else ''}"))
        status, _, said = answer.partition(" ")
        yield Row(what, f"{request} {body}".strip(), (said,), f"HTTP {status}")
    shell.run(
        "gitmodel save -q fraud ../files/other.onnx -m Two && git tag -a fraud@v1.0.1 -m Hurry && gitmodel push -q"
    )
    yield _row(shell, "Pushing a version whose golden cases fail", "git push -q production main fraud@v1.0.1")
    shell.run(
        "gitmodel save -q fraud ../files/third.onnx --golden ../files/cases.npz -m Three && git tag -a fraud@v1.0.2 -m Hurry"
    )
    yield _row(shell, "Pushing a version whose weights were not pushed", "git push -q production main fraud@v1.0.2")
    for what, header, path in (
        ("The name of another host", "Host: evil.example", "/v2"),
        ("A page of another site", "Origin: http://evil.example", "/metrics"),
    ):
        status, _, said = " ".join(shell.run(f"python ~/ask.py GET {path} '' '{header}'")).partition(" ")
        yield Row(what, f"GET {path}, {header}", (said,), f"HTTP {status}")
    shell.run("git tag -f -a fraud@v1.0.0 -m Moved fraud@v1.0.1^{}")
    yield _row(shell, "Moving a released tag", "git push -q --force production fraud@v1.0.0")
    yield _row(shell, "Deleting a released tag", "git push -q production :fraud@v1.0.0")
    shell.run("git tag -a ghost@v1.0.0 -m Ghost")
    yield _row(shell, "Pushing a tag of a model that is not there", "git push -q production ghost@v1.0.0")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def page(found: list[str | Row]) -> str:
    out = [
        "# Unhappy paths",
        "",
        "<!-- Written by scripts/unhappy.py, which runs every command of this page. -->",
        "",
        "What goes wrong, what you type, what it prints and the exit code. Every row was run through the real command"
        " line, in a repository with one model, `fraud`, released as v1.0.0 and pushed to a DVC remote. What the exit"
        " codes and the codes in `error[...]` mean: [errors](reference/errors.md).",
    ]
    for row in found:
        if isinstance(row, str):
            out += ["", f"## {row}", "", "| what | command | printed | exit code |", "|---|---|---|---|"]
        else:
            out.append(row.text())
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the page says otherwise")
    options = parser.parse_args()
    text = page(list(rows()))
    old = PAGE.read_text() if PAGE.is_file() else ""
    before, after = ([form(line) for line in page_.splitlines()] for page_ in (old, text))
    if before == after:
        return
    if not options.check:
        PAGE.write_text(text)
        print(f"wrote {PAGE.name}")
        return
    for line in difflib.unified_diff(before, after, "the page", "as it is", lineterm="", n=0):
        print(re.sub(r"^(.)", r"\1 ", line))
    raise SystemExit("docs/unhappy.md is out of date; run scripts/unhappy.py")


if __name__ == "__main__":
    main()
