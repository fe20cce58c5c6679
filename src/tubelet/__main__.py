"""`python -m tubelet` is the command `tubelet`."""

from tubelet.cli import main

main()
