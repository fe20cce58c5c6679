"""A system like Windows, as far as this one can play it: without the modules, functions and signals of POSIX alone.

python bare_system.py COMMAND...: `tubelet COMMAND...` on such a system; with `import-all`, every module is imported.
The libraries that we use are loaded first: they decide by `sys.platform`, which stays what it is. New processes are
spawned, as on Windows and macOS; each of them imports this file, so it is bare as well.
"""

from __future__ import annotations

import concurrent.futures.process  # noqa: F401
import enum
import importlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import av  # noqa: F401
import jinja2  # noqa: F401
import matplotlib.backends.backend_agg  # noqa: F401
import PIL.Image  # noqa: F401
import pyarrow.parquet  # noqa: F401
import rich.console
import rich.progress  # noqa: F401
import sklearn.linear_model
import sklearn.neighbors  # noqa: F401
import torch.distributed
import torch.utils.data
import torch.utils.tensorboard  # noqa: F401

MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty")
FUNCTIONS = (
    "chown fork forkpty getegid geteuid getgid getloadavg getpgid getpgrp getuid killpg mkfifo nice pread pwrite "
    "register_at_fork sched_setaffinity setsid sync sysconf uname wait3 wait4"
)
SIGNALS = {"SIGALRM", "SIGBUS", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2"}
OF_TIMERS = ("ITIMER_REAL", "alarm", "pause", "setitimer", "siginterrupt")


def make_bare() -> None:
    """Take away what Windows does not have."""
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in FUNCTIONS.split():
        if name in vars(os):
            delattr(os, name)
    for name in (*SIGNALS - {"SIGCHLD", "SIGKILL"}, *OF_TIMERS):  # torch and Python's processes look for these two
        delattr(signal, name)
    left = {one.name: int(one) for one in signal.Signals if one.name not in SIGNALS}
    signal.Signals = enum.IntEnum("Signals", left)  # type: ignore[misc]


def import_all() -> None:
    """Import every module of tubelet, and print its name."""
    source = Path(importlib.import_module("tubelet").__file__ or "").parent
    for path in sorted(source.rglob("*.py")):
        if path.name not in ("__init__.py", "__main__.py"):
            name = ".".join(path.relative_to(source.parent).with_suffix("").parts)
            importlib.import_module(name)
            print(name)


if __name__ in ("__main__", "__mp_main__"):  # here, and in each process that is spawned from here
    make_bare()
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    if sys.argv[1] == "import-all":
        import_all()
    else:
        from tubelet.cli import main

        main(sys.argv[1:])
