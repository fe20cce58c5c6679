"""The command line; the only place that prints."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from tubelet.names import one_line

USER_MISTAKE = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `tubelet ARGUMENTS`. A user's mistake is one line and exit code 2; TUBELET_TRACEBACK=1 shows all of it."""
    # Threads that spin while they wait starve the loader's processes: 8 times slower on 2 busy cores (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "WORLD_SIZE" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost process is one line, not torch's pages
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to end
    from tubelet.cli.app import app

    try:
        app(args=None if arguments is None else list(arguments), prog_name="tubelet")
    except (ValueError, OSError) as error:
        if os.environ.get("TUBELET_TRACEBACK") == "1":
            raise
        print(f"tubelet: {describe(error)}", file=sys.stderr)
        sys.exit(USER_MISTAKE)


def describe(error: Exception) -> str:
    """One line: what, where, and for a system error the path."""
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(" ".join(str(error).split())) or type(error).__name__
