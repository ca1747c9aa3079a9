"""`python -m pneumoserve.cli`: the command line, for processes that start it."""

from pneumoserve.cli import main

main()
