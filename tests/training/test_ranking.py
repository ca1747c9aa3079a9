"""Recipes are ranked by runs that can be stopped, that are learned once, and whose differences are told apart."""

from __future__ import annotations

import inspect
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from pneumoserve.models.architecture import Architecture
from pneumoserve.models.network import ThreeHeads
from tests.support import films
from tests.training.tiny import SIDE
from training import learn as learning
from training.config import TrainConfig
from training.experiments import ranking as module
from training.experiments.ranking import Difference, Ranking, Run, rank, read_table, summarise
from training.experiments.variants import BASELINE, VARIANTS
from training.shifts import SHIFTS

STEPS = 4
HELD_OUT = "validation"
SETTINGS = TrainConfig(
    dataset=str(films.SAMPLE), out=Path(), exclude=None, batch=8, size=SIDE, threads=1, save_every=1
)  # fmt: skip

_SHORT: dict[str, Any] = {"steps": STEPS, "head_steps": 1, "frozen_blocks": 2}
SMALL: dict[str, dict[str, Any]] = {
    BASELINE: _SHORT,
    "mirrored": {**_SHORT, "architecture": Architecture(mirrored=True)},
    "all layers": {**_SHORT, "frozen_blocks": 0, "head_steps": 0},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Variants of four batches and one shift; the batches that were learned, by their number."""
    monkeypatch.setattr(module, "VARIANTS", SMALL)
    monkeypatch.setattr(module, "SHIFTS", {"blur": SHIFTS["blur"]})
    learned: list[int] = []
    draw = learning._draw_batch

    def count(config: TrainConfig, step: int, *rest: object) -> object:
        learned.append(step)
        return draw(config, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(learning, "_draw_batch", count)
    return learned


def ranking_in(cache: Path) -> tuple[Ranking, Console]:
    console = Console(file=io.StringIO(), width=200)
    return Ranking(SETTINGS, cache, console), console


def test_a_stopped_ranking_goes_on_and_learns_nothing_twice(
    small: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = [Run(name, HELD_OUT, 0) for name in SMALL]
    whole, console = ranking_in(tmp_path / "whole")
    assert rank(whole, plan, tmp_path / "whole.csv", console) == []
    # What answers otherwise learns nothing of its own.
    assert small == [0, 1, 2, 3] * 2
    update = learning._update

    def stop(learner: learning.Learner, *losses: torch.Tensor) -> None:
        if learner.done == STEPS - 1:
            raise KeyboardInterrupt
        update(learner, *losses)

    monkeypatch.setattr(learning, "_update", stop)
    stopped, console = ranking_in(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        rank(stopped, plan, tmp_path / "stopped.csv", console)
    assert read_table(tmp_path / "stopped.csv") == []
    monkeypatch.setattr(learning, "_update", update)
    small.clear()
    rank(stopped, plan, tmp_path / "stopped.csv", console)
    assert small == [3, 0, 1, 2, 3]
    rows, others = read_table(tmp_path / "whole.csv"), read_table(tmp_path / "stopped.csv")
    assert [{**row, "cpu_seconds": ""} for row in rows] == [{**row, "cpu_seconds": ""} for row in others]
    small.clear()
    before = (tmp_path / "stopped.csv").read_bytes()
    again, console = ranking_in(tmp_path / "stopped")
    rank(again, plan, tmp_path / "stopped.csv", console)
    assert small == []
    assert (tmp_path / "stopped.csv").read_bytes() == before
    baseline, mirrored, _ = sorted(rows, key=lambda row: list(SMALL).index(row["variant"]))
    assert [baseline[name] for name in ("difference", "difference_low", "difference_high")] == ["0.0"] * 3
    assert mirrored["run"] != baseline["run"]
    assert "--variant mirrored --hold-out validation --seed 0" in mirrored["command"]
    assert summarise(again, plan).row_count == len(plan)


def test_what_another_process_works_on_is_left_out(tmp_path: Path) -> None:
    ranking, console = ranking_in(tmp_path / "cache")
    run = Run(BASELINE, HELD_OUT, 0)
    with module._lock(ranking._folder(run) / "lock") as free:
        assert free
        assert rank(ranking, [run], tmp_path / "table.csv", console) == [run]
    assert read_table(tmp_path / "table.csv") == []


def test_other_code_or_another_recipe_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking, _ = ranking_in(tmp_path)
    run = Run(BASELINE, HELD_OUT, 0)
    folder = ranking._folder(run)
    for other in (replace(run, seed=1), replace(run, hold_out="earliest"), replace(run, variant="all layers")):
        assert ranking._folder(other) != folder
    assert ranking._folder(replace(run, variant="mirrored")) == folder
    source = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda of: source(of) + "\n# Another comment.\n")
    assert ranking_in(tmp_path)[0]._folder(run) == folder
    monkeypatch.setattr(inspect, "getsource", lambda of: source(of) + "\nanother = 1\n")
    assert ranking_in(tmp_path)[0]._folder(run) != folder


def test_a_difference_is_told_from_chance() -> None:
    draw = np.random.default_rng(0)
    labels = draw.random(600) < 0.5
    patients = np.array([f"p{number // 2}" for number in range(600)])
    weak, weak_too = (labels * 1.5 + draw.normal(size=600) for _ in range(2))
    strong = labels * 3.0 + draw.normal(size=600)
    same = Difference.of(labels, patients, [weak], [weak])
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    chance = Difference.of(labels, patients, [weak], [weak_too])
    assert chance.low < 0 < chance.high
    better = Difference.of(labels, patients, [strong], [weak])
    assert 0.05 < better.low < better.value < better.high
    both = Difference.of(labels, patients, [strong, weak], [weak, weak])
    assert both.value == pytest.approx(better.value / 2, abs=1e-4)


def test_every_variant_is_a_training_that_a_run_can_state() -> None:
    for name, changes in VARIANTS.items():
        config = replace(SETTINGS, batch=32, **changes)
        assert sum(config.batch_counts.values()) == 32, name
        assert Architecture.parse(config.parameters["architecture"]) == config.architecture
    plain = replace(SETTINGS, batch=32, **VARIANTS["plain"])
    assert plain.batch_counts == {"normal": 13, "bacterial": 10, "viral": 9}
    distinct = {str(replace(SETTINGS, **changes).parameters) for changes in VARIANTS.values()}
    assert len(distinct) == len(VARIANTS)


def test_with_no_block_frozen_the_stem_learns_too(tmp_path: Path) -> None:
    ranking, _ = ranking_in(tmp_path)
    stems = {}
    for name in (BASELINE, "all layers"):
        assert ranking.do(Run(name, HELD_OUT, 0))
        weights = ranking._folder(Run(name, HELD_OUT, 0)) / "network.safetensors"
        stems[name] = load_file(weights)["trunk._conv_stem.weight"]
    torch.manual_seed(0)
    untouched = ThreeHeads(Architecture()).trunk._conv_stem.weight
    assert torch.equal(stems[BASELINE], untouched)
    assert not torch.equal(stems["all layers"], untouched)


def test_only_matrices_decay_where_a_recipe_says_so() -> None:
    network = ThreeHeads(Architecture())
    matrices, others = learning._group_parameters(network, replace(SETTINGS, decay_matrices_only=True))
    assert (matrices["weight_decay"], others["weight_decay"]) == (SETTINGS.weight_decay, 0.0)
    assert {each.ndim for each in others["params"]} == {1}
    assert len(matrices["params"]) + len(others["params"]) == len(list(network.parameters()))
    (everything,) = learning._group_parameters(network, SETTINGS)
    assert everything["weight_decay"] == SETTINGS.weight_decay


def test_an_unknown_variant_is_answered_with_those_there_are() -> None:
    app = typer.Typer()
    app.command()(module.main)
    said = CliRunner().invoke(app, ["--dataset", "films", "--variant", "huge"])
    assert said.exit_code == 2
    assert "no variant huge" in said.output
