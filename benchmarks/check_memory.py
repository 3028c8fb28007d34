"""Measures the peak memory of judging two versions of a model of 1 GB: it shall stay under twice the larger of them.

*anonymous* is the memory that is the programs' own, *together* all that they have in memory at a time: the command and the
children in which it opens models, a page that is mapped twice counted once (Pss of proc(5)). Weights that are mapped count
in the latter, though the system may drop them at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import measure
import sides
from chain import Chain, write_model

#: A break is what some of these find.
CHECK = "rm -rf .git/gitmodel/replays; gitmodel check-compat m@v1.0.0 m@v2.0.0 >said || [ $? = 1 ]"
ONE_ROW = "import sys, numpy as np; np.savez('cases.npz', x=np.random.default_rng(0).normal(size=(16, int(sys.argv[1]))).astype('float32'))"
_TIMEOUT = 600.0


@dataclass
class Peaks:
    """The peaks of a command and all that it started, in bytes: what is their own, and all that they have in memory."""

    anonymous: int = 0
    together: int = 0

    def __call__(self, shell: int) -> None:
        seen = [proportional(process) for process in descendants(shell)]
        self.anonymous = max(self.anonymous, sum(own for own, _ in seen))
        self.together = max(self.together, sum(whole for _, whole in seen))


def descendants(root: int) -> Iterator[int]:
    """The process, its children and theirs: those that open models have sessions of their own."""
    parents: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    yield from found


def proportional(process: int) -> tuple[int, int]:
    """What is the process's own, and all it has in memory, a page that several have, or one has twice, shared out among
    them; 0 for one that has ended. Raises PermissionError."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0), sizes.get("Pss", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the model")
    options = parser.parse_args()
    chain = Chain.of(options.megabytes * 1_000_000)
    with measure.isolated() as (folder, env):
        rows = [row(name, peaks, chain.size) for name, peaks in run(folder / "run", chain, env)]
    print(f"a model of {chain.size / 1e6:,.0f} MB; {measure.load()}")
    header = ["check-compat of two versions", "anonymous, MB", "together, MB", "share of the model", "seconds"]
    print(measure.table(header, rows))


def run(folder: Path, chain: Chain, env: Mapping[str, str]) -> Iterator[tuple[str, tuple[Peaks, measure.Timed]]]:
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
        peaks = Peaks()
        yield name, (peaks, measure.shell(CHECK, repo, env, timeout=_TIMEOUT, watch=peaks))
        print((repo / "said").read_text(), flush=True)
        shutil.rmtree(folder)


def row(name: str, peaks: tuple[Peaks, measure.Timed], size: int) -> list[str]:
    seen, timed = peaks
    own, whole = seen.anonymous, seen.together
    return [
        name,
        f"{own / 1e6:,.0f}",
        f"{whole / 1e6:,.0f}",
        f"{own / size:.2f}, {whole / size:.2f}",
        f"{timed.seconds:.1f}",
    ]


if __name__ == "__main__":
    main()
