"""Rank recipes on films of a source that they never saw: `python -m training.experiments.ranking --dataset FOLDER`.

Each run learns by one of the `variants`, with something held out, from one seed. It is measured on what it held out,
and on the calibration fold under every shift of the suite. Folds of patients cannot rank recipes: all reach .99 there.

The table `ranking.csv` beside this program has a row a run. Whatever was learned and scored is kept in the user's cache
folder, by code and configuration. So a run that is stopped goes on from its last checkpoint, the same command never
learns anything twice, and variants that differ in how they answer share their weights. Start the command twice to use
two cores: what one process works on, the other leaves out.
"""

from __future__ import annotations

import ast
import csv
import fcntl
import inspect
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.models import architecture, network
from pneumoserve.models.network import ThreeHeads
from pneumoserve.release import holdout
from pneumoserve.release.holdout import Parts, partition
from training import augment, export, learn, shifts
from training.checkpoints import claim_folder
from training.config import TrainConfig
from training.dataset import excluded_patients
from training.experiments.variants import BASELINE, VARIANTS
from training.fit import interval, resamples
from training.options import Device, Threads
from training.scores import Logits, Scores, auc, read_scores, write_scores
from training.shifts import SHIFTS
from training.source import Films, open_dataset, read_films
from training.train import settle

HOLD_OUTS: Final = ("prefix:NORMAL2-IM-", "prefix:IM-", "earliest")
TABLE: Final = Path(__file__).with_name("ranking.csv")
# What decides weights and scores, beside the parameters.
_CODE: Final[tuple[ModuleType, ...]] = (architecture, network, holdout, augment, export, learn, shifts)
# A process that is ended loses less than two minutes of work.
_SAVE_EVERY: Final = 25
_PLAIN, _FOLD = "held out", "calibration"


@dataclass(frozen=True)
class Run:
    """One training: by which recipe, what it holds out, from which seed."""

    variant: str
    hold_out: str
    seed: int

    @property
    def baseline(self) -> Run:
        """The run that it is compared with, film by film."""
        return replace(self, variant=BASELINE)

    def __str__(self) -> str:
        return f"{self.variant}; {self.hold_out} held out; seed {self.seed}"


@dataclass(frozen=True)
class Difference:
    """By how much a recipe's AUC is higher than the baseline's on the same films, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(
        cls,
        labels: npt.NDArray[np.bool_],
        patients: npt.NDArray[np.str_],
        ours: Sequence[Logits],
        theirs: Sequence[Logits],
    ) -> Difference:
        """That of the mean AUC of several seeds, each with scores [N] of the same films; by bootstrap over patients."""

        def difference(rows: npt.NDArray[np.int64]) -> float:
            there = labels[rows]
            return float(
                np.mean([auc(there, scores[rows]) for scores in ours])
                - np.mean([auc(there, scores[rows]) for scores in theirs])
            )

        low, high = interval(difference(rows) for rows in resamples(patients))
        return cls(round(difference(np.arange(len(labels))), 4), low, high)


@dataclass(frozen=True)
class Row:
    """A line of the table: figures of one run, and its differences from the baseline's run of that seed.

    `detector_auc` is that of what was held out, with the calibration fold's pneumonias where it has none.
    `typer_auc` and the falls are those of the calibration fold: a fall is that of an AUC under the shift that is named.
    `cpu_seconds` is what learning took of one processor.
    """

    variant: str
    hold_out: str
    seed: int
    run: str
    batches: int
    cpu_seconds: int
    detector_auc: float
    difference: float
    difference_low: float
    difference_high: float
    typer_auc: float
    typer_difference: float
    typer_difference_low: float
    typer_difference_high: float
    detector_fall: float
    detector_fall_under: str
    typer_fall: float
    typer_fall_under: str
    command: str


@dataclass(frozen=True)
class _Result:
    """What is kept of a run: its scores by the set of films or the shift, and what learning took."""

    cpu_seconds: float
    scores: dict[str, Scores]


class Ranking:
    """Runs of one dataset. `settings` replaces defaults of every run, `cache` keeps what was learned and scored."""

    def __init__(self, settings: TrainConfig, cache: Path, console: Console) -> None:
        """Reads the films.

        Raises:
            DatasetError: the dataset is not usable.
        """
        self._settings, self._cache, self._console = settings, cache, console
        self._code = [_digest_of_code(module) for module in _CODE]
        whole, read = open_dataset(settings.dataset)
        self._dataset = whole.without(excluded_patients(settings.exclude))
        self._films = read_films(list(self._dataset.items), read, "reading films")

    def do(self, run: Run) -> bool:
        """Learn and score whatever of a run is not kept yet; False where another process works on it.

        Raises:
            TrainingError: a loss that is no number.
        """
        if self._scores_file(run).exists():
            return True
        with _lock(self._folder(run) / "lock") as free:
            if free:
                parts = partition(self._dataset.items, run.hold_out)
                self._score(run, self._learn(run, parts), parts)
        return free

    def result_of(self, run: Run) -> _Result | None:
        """What is kept of a run, None where it is not finished."""
        file = self._scores_file(run)
        if not file.exists():
            return None
        cpu_seconds = float((self._folder(run) / "cpu_seconds").read_text())
        return _Result(cpu_seconds, read_scores(file))

    def key_of(self, run: Run) -> str:
        """What names a run: a digest of its code, films, parameters and seed."""
        return digest_of(f"{self._folder(run).name} {self._config(run).architecture}".encode())[:12]

    def row_of(self, run: Run) -> Row | None:
        """The line of a run, None where it or its baseline is not finished."""
        ours, theirs = self.result_of(run), self.result_of(run.baseline)
        if ours is None or theirs is None:
            return None
        config, plain, fold = self._config(run), ours.scores[_PLAIN], ours.scores[_FOLD]
        found, typed = compare([ours.scores], [theirs.scores])
        falls = {name: _aucs(ours.scores[name], fold.sick) for name in SHIFTS}
        before = _aucs(fold, fold.sick)
        detector_fall, detector_under = max((before[0] - after[0], name) for name, after in falls.items())
        typer_fall, typer_under = max((before[1] - after[1], name) for name, after in falls.items())
        return Row(
            variant=run.variant,
            hold_out=run.hold_out,
            seed=run.seed,
            run=self.key_of(run),
            batches=config.steps,
            cpu_seconds=round(ours.cpu_seconds),
            detector_auc=round(auc(plain.sick, plain.detector), 4),
            difference=found.value,
            difference_low=found.low,
            difference_high=found.high,
            typer_auc=round(before[1], 4),
            typer_difference=typed.value,
            typer_difference_low=typed.low,
            typer_difference_high=typed.high,
            detector_fall=round(detector_fall, 4),
            detector_fall_under=detector_under,
            typer_fall=round(typer_fall, 4),
            typer_fall_under=typer_under,
            command=self._command(run),
        )

    def _command(self, run: Run) -> str:
        words = ["python", "-m", "training.experiments.ranking", "--dataset", "kermany224", "--variant", run.variant]
        words += ["--hold-out", run.hold_out, "--seed", str(run.seed)]
        words += ["--device", self._settings.device, "--threads", str(self._settings.threads)]
        return shlex.join(words)

    def _config(self, run: Run) -> TrainConfig:
        return replace(self._settings, **VARIANTS[run.variant], hold_out=run.hold_out, seed=run.seed)

    def _learning(self, run: Run) -> TrainConfig:
        """The training without what decides no weight, so that runs that only answer otherwise share it."""
        config = self._config(run)
        looks = architecture.Architecture(standardised=config.architecture.standardised)
        return replace(config, architecture=looks)

    def _folder(self, run: Run) -> Path:
        """Where a run's weights are kept."""
        config = self._learning(run)
        claim = {
            "code": self._code,
            "torch": torch.__version__,
            "dataset": self._dataset.digest,
            "parameters": config.parameters,
            "seed": config.seed,
        }
        return self._cache / digest_of(canonical_json(claim))[:16]

    def _scores_file(self, run: Run) -> Path:
        served = digest_of(str(self._config(run).architecture).encode())
        return self._folder(run) / f"scores-{served[:8]}.parquet"

    def _learn(self, run: Run, parts: Parts) -> ThreeHeads:
        """The learned network, from the cache where it has one, which answers as the run says."""
        folder, config = self._folder(run), self._learning(run)
        weights = folder / "network.safetensors"
        if not weights.exists():
            config = replace(config, out=folder)
            settle(config)
            claim_folder(config, self._dataset.digest)
            learner = learn.learn(config, self._films.of(parts.learned), None, self._console)
            (folder / "cpu_seconds").write_text(f"{learner.cpu_seconds:.1f}")
            state = {name: each.contiguous() for name, each in learner.network.state_dict().items()}
            save_file(state, weights.with_suffix(".part"))
            weights.with_suffix(".part").replace(weights)
            (folder / "checkpoints" / "last.pt").unlink()
        learned = ThreeHeads(self._config(run).architecture)
        learned.load_state_dict(load_file(weights))
        return learned.eval()

    def _score(self, run: Run, learned: ThreeHeads, parts: Parts) -> None:
        self._console.print("scoring what is held out and the shifts")
        fold = self._films.of(parts.calibration)
        with tempfile.TemporaryDirectory() as temporary:
            graph = export.Graph(export.export(export.AllHeads(learned), Path(temporary), "network")[1])
            scores = {
                _PLAIN: _ask(graph, self._films.of(parts.measured_on), "scoring what is held out"),
                _FOLD: _ask(graph, fold, "scoring the calibration fold"),
            }
            for name, shift in SHIFTS.items():
                shifted = Films(fold.items, np.stack([shift(film) for film in fold.pixels]))
                scores[name] = _ask(graph, shifted, f"scoring: {name}")
        file = self._scores_file(run)
        write_scores(file.with_suffix(".part"), scores)
        file.with_suffix(".part").replace(file)


def compare(ours: Sequence[dict[str, Scores]], theirs: Sequence[dict[str, Scores]]) -> tuple[Difference, Difference]:
    """The detector's difference on what was held out and the typer's on the fold, of as many seeds as are given."""
    plain, fold = ours[0][_PLAIN], ours[0][_FOLD]
    rows = np.flatnonzero(fold.sick)
    return (
        Difference.of(
            plain.sick,
            plain.patients,
            [each[_PLAIN].detector for each in ours],
            [each[_PLAIN].detector for each in theirs],
        ),
        Difference.of(
            fold.bacterial[rows],
            fold.patients[rows],
            [each[_FOLD].typer[rows] for each in ours],
            [each[_FOLD].typer[rows] for each in theirs],
        ),
    )


def record(row: Row, table: Path) -> None:
    """Put a line in its place in the table, instead of an earlier one of that run."""
    with table.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = {_place(line): line for line in read_table(table)}
        line = {name: str(value) for name, value in asdict(row).items()}
        lines[_place(line)] = line
        with table.with_suffix(".part").open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines[place] for place in sorted(lines))
        table.with_suffix(".part").replace(table)


def read_table(table: Path) -> list[dict[str, str]]:
    """The lines of the table, none where there is no table."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def _place(line: dict[str, str]) -> tuple[int, int, str, int]:
    """By what is held out, as it is asked here, then by variant in their order, then by seed."""
    hold_out, variant = line["hold_out"], line["variant"]
    asked = HOLD_OUTS.index(hold_out) if hold_out in HOLD_OUTS else len(HOLD_OUTS)
    order = list(VARIANTS)
    return asked, order.index(variant) if variant in order else len(order), f"{hold_out} {variant}", int(line["seed"])


def _ask(graph: export.Graph, films: Films, label: str) -> Scores:
    detector, kind, chest = graph.outputs(films.pixels, label)
    return Scores(films.items, detector, kind, chest)


def _aucs(scores: Scores, sick: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The detector's AUC and the typer's."""
    return auc(sick, scores.detector), auc(scores.bacterial[sick], scores.typer[sick])


def _digest_of_code(module: ModuleType) -> str:
    """The digest of what a module does: its syntax without comments and docstrings, whose words change no weight."""
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return digest_of(ast.dump(tree).encode())


@contextmanager
def _lock(file: Path) -> Iterator[bool]:
    """Hold a lock file while the context lasts; False where another process holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def rank(ranking: Ranking, plan: Sequence[Run], table: Path, console: Console) -> list[Run]:
    """Do the runs of a plan that the table lacks, and those that they are compared with; each has its line at once.

    Returns those that were left out, since another process works on them.
    """
    lacking = _lacking(ranking, plan, table)
    needed = {each for run in lacking for each in (run, run.baseline)}
    asked = [run for run in plan if run in needed]
    left_out = []
    for number, run in enumerate(asked, 1):
        console.print(f"run {number} of {len(asked)}: {run}", soft_wrap=True)
        if not ranking.do(run):
            left_out.append(run)
            console.print("another process works on it")
        # The baseline may be all that was missing for the lines of others.
        for done in _lacking(ranking, asked[:number], table):
            row = ranking.row_of(done)
            if row is not None:
                record(row, table)
                console.print(_in_words(row), soft_wrap=True)
    return left_out


def _lacking(ranking: Ranking, plan: Sequence[Run], table: Path) -> list[Run]:
    """The runs of a plan that have no line in the table."""
    there = {line["run"] for line in read_table(table)}
    return [run for run in plan if ranking.key_of(run) not in there]


def _in_words(row: Row) -> str:
    return (
        f"  {row.variant}: detector AUC {row.detector_auc:.4f}, {row.difference:+.4f} ({row.difference_low:+.4f} to "
        f"{row.difference_high:+.4f}); typer AUC {row.typer_auc:.4f}, {row.typer_difference:+.4f}; the detector falls "
        f"by {row.detector_fall:.4f} under {row.detector_fall_under}; {row.cpu_seconds} s"
    )


def summarise(ranking: Ranking, plan: Sequence[Run]) -> Table:
    """What the finished runs of a plan say of each variant, over the seeds that it and the baseline have."""
    shown = Table("held out", "variant", "seeds", "detector AUC", "difference", "typer AUC", "difference")
    for hold_out, variant in dict.fromkeys((run.hold_out, run.variant) for run in plan):
        pairs = [
            (ours.scores, theirs.scores)
            for run in plan
            if (run.hold_out, run.variant) == (hold_out, variant)
            and (ours := ranking.result_of(run)) is not None
            and (theirs := ranking.result_of(run.baseline)) is not None
        ]
        if not pairs:
            continue
        ours_of, theirs_of = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        found, typed = compare(ours_of, theirs_of)
        detector = np.mean([auc(each[_PLAIN].sick, each[_PLAIN].detector) for each in ours_of])
        kind = np.mean([_aucs(each[_FOLD], each[_FOLD].sick)[1] for each in ours_of])
        shown.add_row(
            hold_out, variant, str(len(pairs)), f"{detector:.4f}", _words(found), f"{kind:.4f}", _words(typed)
        )
    return shown


def _words(difference: Difference) -> str:
    return f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"


def cache_folder() -> Path:
    """Below the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pneumoserve-experiments"


def main(
    dataset: Annotated[str, typer.Option(help="Folder of films, or the manifest of an ingested dataset.")],
    variant: Annotated[list[str] | None, typer.Option(help="Recipe of training.experiments.variants; repeat.")] = None,
    hold_out: Annotated[list[str] | None, typer.Option(help="Films that never train and are measured; repeat.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of every draw; repeat.")] = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Compare recipes on films that they never saw. The baseline is part of every comparison."""
    unknown = [name for name in variant or () if name not in VARIANTS]
    if unknown:
        raise typer.BadParameter(f"There is no variant {unknown[0]}; give one of: {'; '.join(VARIANTS)}.")
    names = dict.fromkeys([BASELINE, *(variant or VARIANTS)])
    plan = [Run(name, held, start) for held in hold_out or HOLD_OUTS for start in seed or (0, 1, 2) for name in names]
    console = Console(markup=False)
    settings = TrainConfig(dataset=dataset, out=Path(), device=device, threads=threads, save_every=_SAVE_EVERY)
    ranking = Ranking(settings, cache_folder(), console)
    left_out = rank(ranking, plan, TABLE, console)
    console.print(summarise(ranking, plan))
    if left_out:
        console.print(f"{len(left_out)} runs are another process's; run the command again when it has ended.")


if __name__ == "__main__":
    typer.run(main)
