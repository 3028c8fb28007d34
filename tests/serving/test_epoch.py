"""A number that processes share, seen by a process that was started with its descriptor."""

from __future__ import annotations

import subprocess
import sys

from gitmodel.serving.epoch import Epoch

_CHILD = """
import sys
from gitmodel.serving.epoch import Epoch
epoch = Epoch(int(sys.argv[1]))
print(epoch.get(), flush=True)
sys.stdin.readline()
print(epoch.get(), flush=True)
epoch.set(2**64 - 1)
"""


def test_what_one_process_sets_the_other_sees() -> None:
    epoch = Epoch.make()
    assert epoch.get() == 0
    epoch.set(7)
    command = [sys.executable, "-c", _CHILD, str(epoch.descriptor)]
    with subprocess.Popen(
        command, pass_fds=[epoch.descriptor], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "7\n"
        epoch.set(1 << 40)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == f"{1 << 40}\n"
    assert epoch.get() == 2**64 - 1
    epoch.close()
