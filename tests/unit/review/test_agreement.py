"""How far readers agree: figures by hand, the truth by simulation, and who does not count."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pneumoserve.review import Pair, ReviewDatabase, Verdict, estimate_agreement, measure_agreement
from pneumoserve.review import agreement as module
from tests.support.review_contract import drawn
from tests.support.reviews import NORMAL, PNEUMONIA, UNSURE, Ward


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    database = ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}")
    yield Ward(database)
    database.close()


def test_figures_of_a_table() -> None:
    """Cohen 1960: 20 both, 15 neither, 5 and 10 differ: .35 / .5 = .4 over chance."""
    pairs = [Pair(*found, 1.0) for found, count in (
        ((True, True), 20), ((False, False), 15), ((True, False), 5), ((False, True), 10),
    ) for _ in range(count)]  # fmt: skip
    found = estimate_agreement(pairs)
    assert found.kappa.value == pytest.approx(0.4)
    assert found.positive.value == pytest.approx(40 / 55)
    assert found.negative.value == pytest.approx(30 / 45)
    assert found.kappa.low is not None
    assert found.kappa.high is not None
    assert 0.1 < found.kappa.low < 0.4 < found.kappa.high < 0.7
    assert estimate_agreement(pairs) == found


def test_a_study_counts_by_one_over_its_probability() -> None:
    alone = [Pair(True, True, 1.0), Pair(True, False, 1.0), Pair(False, True, 0.2), Pair(False, False, 0.2)]
    often = [*alone[:2], *[Pair(False, True, 1.0)] * 5, *[Pair(False, False, 1.0)] * 5]
    found, expected = estimate_agreement(alone), estimate_agreement(often)
    for name in ("kappa", "positive", "negative"):
        assert getattr(found, name).value == pytest.approx(getattr(expected, name).value)
    assert found.studies == 4


def simulate(count: int, prevalence: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """All studies read twice; and the ones that the protocol reads twice."""
    chance = random.Random(seed)
    everything, protocol = [], []
    for _ in range(count):
        sick = chance.random() < prevalence
        first, second = (chance.random() < (0.9 if sick else 0.02) for _ in range(2))
        everything.append(Pair(first, second, 1.0))
        share = 1.0 if first else 0.2
        if chance.random() < share:
            protocol.append(Pair(first, second, share))
    return everything, protocol


def kappa_of(pairs: list[Pair]) -> float:
    """Kappa alone: an interval of so many studies would take long."""
    cells = np.array([2 * each.first + each.second for each in pairs])
    table = module._add_up(cells, np.array([1 / each.probability for each in pairs]))
    return float(module._kappa(table[None])[0])


@pytest.mark.parametrize("prevalence", [0.01, 0.5])
@pytest.mark.slow
def test_weighted_it_is_what_all_studies_would_show(prevalence: float) -> None:
    everything, protocol = simulate(60_000, prevalence, seed=1)
    whole, weighted = kappa_of(everything), kappa_of(protocol)
    unweighted = kappa_of([Pair(each.first, each.second, 1.0) for each in protocol])
    assert weighted == pytest.approx(whole, abs=0.03)
    assert abs(unweighted - whole) > 0.05


@pytest.mark.slow
def test_its_interval_covers() -> None:
    truth = kappa_of(simulate(200_000, 0.3, seed=2)[0])
    covered = 0
    for seed in range(100, 120):
        found = estimate_agreement(simulate(300, 0.3, seed)[1]).kappa
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered >= 16


def test_where_nobody_is_sick_there_is_no_kappa() -> None:
    found = estimate_agreement([Pair(False, False, 0.2)] * 30)
    assert (found.kappa.value, found.positive.value, found.negative.value) == (None, None, 1.0)
    none = estimate_agreement([])
    assert (none.studies, none.kappa.value, none.negative.value) == (0, None, None)


def read(ward: Ward, name: str, *verdicts: Verdict, kind: str = "uncertain") -> None:
    study = ward.study(name, kind)
    for number, verdict in enumerate(verdicts, 1):
        ward.room.claim(study, f"r.{number}")
        ward.room.save_reading(study, f"r.{number}", verdict)
        ward.later(seconds=1)


def test_readings_that_were_not_blind_or_of_unknown_probability_do_not_count(ward: Ward) -> None:
    seen = Verdict(finding="pneumonia", certainty="sure", no_result_seen=False)
    read(ward, "both", PNEUMONIA, PNEUMONIA)
    read(ward, drawn(), NORMAL, NORMAL)
    read(ward, "once", PNEUMONIA)
    read(ward, "seen", PNEUMONIA, seen)
    read(ward, "cannot", PNEUMONIA, UNSURE)
    found = measure_agreement(ward.database)
    assert found.studies == 2
    assert found.left_out == {"could not tell": 1, "not blind": 1}
    assert found.kappa.value == 1.0
