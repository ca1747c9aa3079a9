"""Films changed at random against the decode path: `make fuzz SECONDS=60`, explained in README.md beside this file."""
