"""torchrun that ends as its worker did.

torchrun exits with 1 whatever its worker's exit status was. A Job needs that status: a mistake is not tried again, a
worker that was lost is. `python -m training.launch` takes torchrun's arguments and hands the status on.
"""

from __future__ import annotations

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def launch(arguments: list[str]) -> int:
    """Run torchrun; the exit status of the first worker that failed, 1 where a signal ended it."""
    try:
        main(arguments)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return max(first.exitcode, 1)
    return 0


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
