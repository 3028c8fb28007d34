"""Opens two generations of a real model and runs its publisher's calls through both: what a replay cannot be quicker than."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


def main() -> None:
    folder = Path(sys.argv[1])
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    old, new = (
        ort.InferenceSession(str(folder / f"standard_{generation}" / "model.onnx"), options)
        for generation in ("v3_0", "v3_3")
    )
    with np.load(folder / "standard_v3_3" / "reference.npz") as published:
        rows = published["bytes"]
    moved = 0
    for row in rows:
        (before,), (after,) = (side.run(None, {"bytes": row[None]}) for side in (old, new))
        moved += int(before.argmax() != after.argmax())
    print(moved)


if __name__ == "__main__":
    main()
