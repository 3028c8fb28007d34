"""Measures the peak memory of judging two versions of a model of 1 GB: it shall stay under twice the larger of them.

*anonymous* and *resident* are those of memory.py; *highest* is VmHWM of proc(5), of the process that has most. Weights that
are mapped count in the latter two though the system may drop them at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import measure
import memory
import sides
from chain import Chain, write_model

#: A break is what some of these find.
CHECK = "rm -rf .git/gitmodel/replays; gitmodel check-compat m@v1.0.0 m@v2.0.0 >said || [ $? = 1 ]"
ONE_ROW = "import sys, numpy as np; np.savez('cases.npz', x=np.random.default_rng(0).normal(size=(16, int(sys.argv[1]))).astype('float32'))"
_TIMEOUT = 600.0


@dataclass
class Highest:
    """Both peaks of a command's processes, in bytes: what is their own together, and VmHWM of the largest."""

    anonymous: memory.Anonymous
    resident: int = 0

    def __call__(self, session: int) -> None:
        self.anonymous(session)
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) >= session:
                self.resident = max(self.resident, highest(int(process.name), session))


def highest(process: int, session: int) -> int:
    """0 for a process of another session, or one that has ended."""
    with contextlib.suppress(OSError, IndexError):
        if int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[3]) == session:
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the model")
    options = parser.parse_args()
    chain = Chain.of(options.megabytes * 1_000_000)
    with measure.isolated() as (folder, env):
        rows = [row(name, peaks, chain.size) for name, peaks in run(folder / "run", chain, env)]
    print(f"a model of {chain.size / 1e6:,.0f} MB; {measure.load()}")
    header = ["check-compat of two versions", "anonymous, MB", "highest, MB", "share of the model", "seconds"]
    print(measure.table(header, rows))


def run(folder: Path, chain: Chain, env: Mapping[str, str]) -> Iterator[tuple[str, tuple[Highest, measure.Timed]]]:
    """On drawn cases, and on sixteen recorded ones, for which weights are packed as a server packs them."""
    for name, golden in (("16 drawn cases", ""), ("16 recorded cases", "--golden cases.npz")):
        repo = sides.start(folder, env)["gitmodel"]
        measure.shell(f'python -c "{ONE_ROW}" {chain.side}', repo, env)
        for version in (1, 2):
            model = folder / "model.onnx"
            measure.apart(write_model, model, chain, version)
            save = f"gitmodel save m {model} {golden} -m {version}"
            measure.shell(f"{save} && git tag -a m@v{version}.0.0 -m {version}", repo, env, timeout=_TIMEOUT)
            model.unlink()
        peaks = Highest(memory.Anonymous())
        yield name, (peaks, measure.shell(CHECK, repo, env, timeout=_TIMEOUT, watch=peaks))
        print((repo / "said").read_text(), flush=True)
        shutil.rmtree(folder)


def row(name: str, peaks: tuple[Highest, measure.Timed], size: int) -> list[str]:
    seen, timed = peaks
    own, whole = seen.anonymous.peak, max(seen.resident, timed.memory)
    return [
        name,
        f"{own / 1e6:,.0f}",
        f"{whole / 1e6:,.0f}",
        f"{own / size:.2f}, {whole / size:.2f}",
        f"{timed.seconds:.1f}",
    ]


if __name__ == "__main__":
    main()
