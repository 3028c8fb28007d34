"""Runs the demo on a terminal of its own and draws what it showed as docs/images/demo.svg.

The words and colours are the demo's; only the folders of this machine are replaced, and long lines are folded.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "demo.svg"
WIDTH = 132
#: rich links a font from elsewhere; a picture must not load anything.
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gitmodel-picture-") as folder:
        root = Path(folder).resolve() / "demo"
        shown = run(root).replace(str(root), "/tmp/gitmodel-demo")  # words in a picture
    shown = shown.replace(str(Path(sys.executable).parent), "~/gitmodel/.venv-demo/bin")
    picture = draw(shown)
    if str(ROOT) in picture or str(Path.home()) in picture:
        raise SystemExit("the picture would show a folder of this machine")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture)
    print(f"wrote {PICTURE.relative_to(ROOT)}, {len(picture) / 1000:.0f} kB")


def run(root: Path) -> str:
    """What the demo shows on a terminal, colours included."""
    ours, its = pty.openpty()
    kept = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    demo = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(ROOT / "scripts" / "demo.py"), str(root)],
        stdin=subprocess.DEVNULL, stdout=its, stderr=its, env={**kept, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(its)
    chunks = []
    with contextlib.suppress(OSError):  # how a terminal ends
        while chunk := os.read(ours, 1 << 16):
            chunks.append(chunk)
    os.close(ours)
    shown = b"".join(chunks).decode().replace("\r\n", "\n")
    if demo.wait():
        raise SystemExit(shown)
    return shown


def draw(shown: str) -> str:
    """The text as an SVG in a terminal's frame."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ scripts/demo", style="bold"))
    for line in shown.splitlines():
        text = Text.from_ansi(line)
        indent = len(text.plain) - len(text.plain.lstrip()) + 2
        first, *more = text.wrap(console, WIDTH - indent) if len(text) > WIDTH else [text]
        console.print(first, no_wrap=True)
        for rest in more:
            console.print(Text(" " * indent) + rest, no_wrap=True)
    picture = console.export_svg(title="gitmodel", theme=MONOKAI, unique_id="demo")
    return _FONT_FACE.sub("", picture).replace("Fira Code, ", "")


if __name__ == "__main__":
    main()
