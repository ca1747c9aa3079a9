"""Labels of the archive as a command's dataset: which ones, and what people read of them."""
# ruff: noqa: PLC0415

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from pneumoserve.cli.output import Failure, errors

if TYPE_CHECKING:
    from pneumoserve.cli.reviews import Review
    from pneumoserve.records import Scope
    from pneumoserve.review import Collected

LABELS: Final = "labels"
DATASET_HELP: Final = (
    "The site's labelled films: a folder, or the manifest of an ingested dataset. `labels`: what the reading room "
    "labelled of studies in the archive."
)
AnsweredBy = Annotated[
    str | None,
    typer.Option("--answered-by", metavar="ID", help="Of labels: only studies that this release answered."),
]
Since = Annotated[
    datetime | None, typer.Option("--since", formats=["%Y-%m-%d"], help="Of labels: first day of answer (UTC).")
]
Site = Annotated[str | None, typer.Option("--site", help="Of labels: only of this site, a verified caller.")]


def scope_of(dataset: str, answered_by: str | None, since: datetime | None, site: str | None) -> Scope | None:
    """Which studies of the archive are asked for; None where the dataset is another one.

    Raises:
        Failure: an option is of labels, and the dataset is not.
    """
    from pneumoserve.records import Scope

    if dataset == LABELS:
        return Scope(since, answered_by, site)
    if answered_by is not None or since is not None or site is not None:
        raise Failure("--answered-by, --since and --site go with `--dataset labels` alone; leave them out.", 2)
    return None


def collect(review: Review, scope: Scope) -> Collected:
    """The labels in scope, with their weights.

    Raises:
        ArchiveLabelError, NoStudiesError: they cannot be used; the text says why.
    """
    from datetime import UTC

    from pneumoserve.review import collect_labels

    return collect_labels(review.database, review.store, datetime.now(UTC), scope)


def show_collected(collected: Collected) -> None:
    """Show on stderr how many studies the labels stand for."""
    table = Table("release", "answer", "studies", "chosen", "used", "cannot tell", "not blind", "unread", "erased")
    for each in collected.answers:
        counts = (
            each.studies, each.chosen, each.used, each.cannot_tell, each.not_blind, each.unread, each.erased,
        )  # fmt: skip
        table.add_row(each.release, each.answer, *(f"{count:,}" for count in counts))
    errors.print(table)
    items = collected.labels.items
    errors.print(
        f"{len(items):,} images, of weights from {min(item.weight for item in items):.1f} to "
        f"{max(item.weight for item in items):.1f}: each counts by one over its probability of being read",
        soft_wrap=True,
    )
    drawless = sum(each.not_drawn for each in collected.answers)
    if drawless:
        errors.print(f"{drawless:,} labelled studies were not drawn by chance, and do not count", soft_wrap=True)
    if collected.without_patient:
        errors.print(
            f"{collected.without_patient:,} of these studies name no patient, and count as a patient each",
            soft_wrap=True,
        )
