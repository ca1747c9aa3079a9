"""What is generated in this repository, and the check that it is in step with what it is generated from.

`make generate` writes all of it; `python -m tools.generate --check` fails where a file differs. Requirement files are
generated too, by `make lock`, which needs a package index.
"""

from tools.generate.generator import Files, Generator, find_differences, write_files

__all__ = ["Files", "Generator", "find_differences", "write_files"]
