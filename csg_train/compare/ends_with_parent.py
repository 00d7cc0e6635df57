"""`python -m csg_train.compare.ends_with_parent COMMAND...`: the command, which gets SIGTERM when its parent ends.

A worker of Ray that is killed can't pass a signal on; its training would go on, and keep the run from being continued.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent and parent != 1:
        os.execv(sys.argv[1], sys.argv[1:])
