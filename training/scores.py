"""What the models said of films, and how well that separates the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet
from scipy import stats

from pneumoserve.release.data import Item, LabelledFilm

Logits = npt.NDArray[np.float32]
# Columns of the file and what an item calls them.
_FILM: Final = {"sha256": "sha256", "class": "cls", "patient": "patient", "split": "split", "name": "name"}
# Those of labels of the archive, of which no other training may learn.
_WEIGHTED_FILM: Final = {
    "sha256": "sha256", "class": "cls", "patient": "patient", "prediction_id": "prediction_id", "weight": "weight",
}  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Films, both models' logits of them and those of the detector's gate, each of shape [N]."""

    items: Sequence[LabelledFilm]
    detector: Logits
    typer: Logits
    chest: Logits

    @classmethod
    def concatenate(cls, parts: Sequence[Scores]) -> Scores:
        """Several sets as one."""
        return cls(
            [item for part in parts for item in part.items],
            np.concatenate([part.detector for part in parts]),
            np.concatenate([part.typer for part in parts]),
            np.concatenate([part.chest for part in parts]),
        )

    @property
    def sick(self) -> npt.NDArray[np.bool_]:
        """Whether the label is pneumonia, of either kind."""
        return np.array([item.cls != "normal" for item in self.items])

    @property
    def bacterial(self) -> npt.NDArray[np.bool_]:
        """Whether the label is bacterial pneumonia."""
        return np.array([item.cls == "bacterial" for item in self.items])

    @property
    def typed(self) -> npt.NDArray[np.bool_]:
        """Whether the label is a pneumonia whose type is known."""
        return np.array([item.cls in ("bacterial", "viral") for item in self.items])

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """For how many films each one stands; 1 but for labels of the archive."""
        return np.array([item.weight for item in self.items], dtype=np.float64)

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Each film's patient."""
        return np.array([item.patient for item in self.items])


def auc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> float:
    """Area under the ROC curve, by ranks (Mann & Whitney 1947); NaN where only one class is there.

    Bootstraps ask for it some 100,000 times, which no library's function with its checks is fast enough for.
    """
    if labels.all() or not labels.any():
        return float("nan")
    ranks = stats.rankdata(scores)
    sick = int(labels.sum())
    return float((ranks[labels].sum() - sick * (sick + 1) / 2) / (sick * (len(labels) - sick)))


def write_scores(path: Path, groups: dict[str, Scores]) -> None:
    """The scores of films that never trained, by the set they are measured in, one row a film, as Parquet."""
    rows = [(name, item) for name, scores in groups.items() for item in scores.items]
    film = _FILM if all(isinstance(item, Item) for _, item in rows) else _WEIGHTED_FILM
    columns: dict[str, Any] = {"set": [name for name, _ in rows]}
    columns |= {column: [getattr(item, name) for _, item in rows] for column, name in film.items()}
    columns |= {
        f"{name}_logit": np.concatenate([getattr(scores, name) for scores in groups.values()])
        for name in ("detector", "typer", "chest")
    }
    parquet.write_table(pa.table(columns), path)


def read_scores(path: Path) -> dict[str, Scores]:
    """What `write_scores` wrote.

    Raises:
        OSError: there is no such file.
        KeyError: it is of another version, or of labels of the archive.
    """
    table = parquet.read_table(path)
    groups = {}
    for name in dict.fromkeys(table["set"].to_pylist()):
        part = table.filter(pa.compute.equal(table["set"], name))
        items = [
            Item(**{name: row[column] for column, name in _FILM.items()}) for row in part.select([*_FILM]).to_pylist()
        ]
        groups[name] = Scores(items, *(part[f"{model}_logit"].to_numpy() for model in ("detector", "typer", "chest")))
    return groups
