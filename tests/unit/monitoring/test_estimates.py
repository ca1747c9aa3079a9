"""What is made of readings: figures by hand, what cannot be told, and a small simulation (benchmarks/metrics.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count as numbers

import numpy as np
import pytest

from pneumoserve.monitoring import (
    LEAST,
    Cell,
    Figure,
    PrevalenceError,
    Tally,
    choose_one_a_patient,
    measure,
    rank_of,
    tally,
)
from tests.support.simulation import (
    FIGURES,
    World,
    answer_all,
    choose,
    count,
    covers_of,
    read_by_rule,
    read_once,
    simulate_run,
)

_NAMES = numbers()
THRESHOLD = 0.3


@dataclass(frozen=True)
class Made:
    """A study."""

    stratum: str
    truth: str | None = None
    probability: float | None = None
    outcome: str = "not_drawn"
    score: float | None = 0.5
    patient: str | None = None
    case_id: str = ""

    def __post_init__(self) -> None:
        if not self.case_id:
            object.__setattr__(self, "case_id", f"case {next(_NAMES)}")


def read(stratum: str, truth: str, amount: int, probability: float = 1.0, score: float | None = None) -> list[Made]:
    at = score if score is not None else 0.1 if stratum.startswith("normal") else 0.9
    return [Made(stratum, truth, probability, "read", at) for _ in range(amount)]


def others(stratum: str, amount: int) -> list[Made]:
    return [Made(stratum, score=0.1) for _ in range(amount)]


# 2,000 studies: 100 referred, 100 confident pneumonias, 1,800 confident normals of which a tenth is drawn.
WARD = [
    *read("referred", "pneumonia", 20, score=0.5), *read("referred", "normal", 80, score=0.2),
    *read("pneumonia/near", "pneumonia", 40, 0.5), *read("pneumonia/near", "normal", 10, 0.5),
    *others("pneumonia/near", 50),
    *read("normal/far", "pneumonia", 1, 0.1), *read("normal/far", "normal", 179, 0.1), *others("normal/far", 1620),
]  # fmt: skip


def test_figures_by_hand() -> None:
    """Weighted, 110 are sick: 20 referred, 80 called sick, 10 missed; 1,890 are well: 80, 20 and 1,790."""
    found = measure(tally(WARD, THRESHOLD)).observed
    expected = {
        "product_sensitivity": 100 / 110,
        "product_specificity": 1790 / 1890,
        "product_ppv": 100 / 200,
        "product_npv": 1790 / 1800,
        "threshold_sensitivity": 100 / 110,
        "threshold_specificity": (80 + 1790) / 1890,
        "threshold_ppv": 100 / 120,
        "threshold_npv": 1870 / 1880,
        "stated_pneumonia_ppv": 80 / 100,
        "false_alarm_rate": 20 / 1890,
        "referral_rate_sick": 20 / 110,
        "referral_rate_well": 80 / 1890,
        "prevalence": 110 / 2000,
        "misses_per_1000": 5,
        "needless_referrals_per_1000": 40,
        "referral_rate": 0.05,
    }
    assert {name: figure.interval.value for name, figure in found.items() if figure.interval} == {
        name: pytest.approx(value) for name, value in expected.items()
    }
    for figure in found.values():
        assert figure.interval is not None
        assert figure.interval.low <= figure.interval.value <= figure.interval.high
    assert found["product_sensitivity"].naive == 60 / 61
    assert found["product_sensitivity"].always_normal == 0
    assert found["product_npv"].always_normal == pytest.approx(1 - 110 / 2000)
    assert found["misses_per_1000"].always_normal == pytest.approx(55)


def test_a_given_prevalence_changes_what_hangs_on_it() -> None:
    found = measure(tally(WARD, THRESHOLD), 0.01).at_prevalence
    sensitivity, specificity = 100 / 110, 1790 / 1890
    ppv = 0.01 * sensitivity / (0.01 * sensitivity + 0.99 * (1 - specificity))
    assert found["product_ppv"].interval is not None
    assert found["product_ppv"].interval.value == pytest.approx(ppv)
    assert found["misses_per_1000"].interval is not None
    assert found["misses_per_1000"].interval.value == pytest.approx(10 * (1 - sensitivity))
    assert found["misses_per_1000"].always_normal == 10
    assert found["needless_referrals_per_1000"].interval is not None
    assert found["needless_referrals_per_1000"].interval.value == pytest.approx(990 * 80 / 1890)
    assert found["referral_rate"].interval is not None
    assert found["referral_rate"].interval.value == pytest.approx(0.01 * 20 / 110 + 0.99 * 80 / 1890)
    for figure in found.values():
        assert figure.interval is not None
        assert figure.bounds is not None
        assert figure.interval.low <= figure.interval.value <= figure.interval.high
        assert figure.bounds[0] <= figure.bounds[1]
    assert found["product_npv"].always_normal == 0.99


def test_at_the_observed_prevalence_it_is_what_was_observed() -> None:
    found = measure(tally(WARD, THRESHOLD), 110 / 2000)
    for name, figure in found.at_prevalence.items():
        assert figure.interval is not None
        seen = found.observed[name].interval
        assert seen is not None
        assert figure.interval.value == pytest.approx(seen.value), name


@pytest.mark.parametrize("prevalence", [0, 1, 2, -0.1, float("nan")])
def test_a_prevalence_that_cannot_be_one_is_refused(prevalence: float) -> None:
    with pytest.raises(PrevalenceError, match="between 0 and 1"):
        measure(tally(WARD, THRESHOLD), prevalence)


def test_days_without_a_draw_do_not_make_misses_vanish() -> None:
    """As many confident normals again, of days on which nobody drew: as many are taken to be missed there."""
    more = [*WARD, *others("normal/far", 1800)]
    missed = measure(tally(more, THRESHOLD)).observed["misses_per_1000"].interval
    assert missed is not None
    assert missed.value == pytest.approx(1000 * 20 / 3800)


def test_what_nobody_could_judge_bounds_the_figures() -> None:
    unread = [Made("normal/far", None, 0.1, outcome, 0.1) for outcome in ("unread", "cannot_tell") for _ in range(5)]
    fewer = [each for each in WARD if each.stratum != "normal/far" or each.probability is None]
    kept = [*read("normal/far", "pneumonia", 1, 0.1), *read("normal/far", "normal", 169, 0.1)]
    given = tally([*fewer, *kept, *unread], THRESHOLD)
    found = measure(given).observed["product_sensitivity"]
    assert found.interval is not None
    # Of 1,800, 1 of 170 is sick; if all ten were, 11 of 180.
    assert found.interval.value == pytest.approx(100 / (100 + 1800 / 170))
    assert found.bounds == (pytest.approx(100 / (100 + 110)), pytest.approx(100 / (100 + 10)))
    (stratum,) = [each for each in given.strata if each.name == "normal/far"]
    assert (stratum.studies, stratum.chosen) == (1800, 180)
    assert stratum.outcomes == {"cannot_tell": 5, "read": 170, "unread": 5}


def test_with_too_few_readings_there_is_no_number() -> None:
    few = [*read("referred", "pneumonia", 3), *read("referred", "normal", 9), *read("normal/far", "normal", 30, 0.5)]
    found = measure(tally(few, THRESHOLD), 0.01)
    sensitivity = found.observed["product_sensitivity"]
    assert (sensitivity.interval, sensitivity.lacking) == (None, LEAST - 3)
    assert found.observed["product_specificity"].interval is not None
    assert found.at_prevalence["product_ppv"].interval is None
    assert found.at_prevalence["product_ppv"].lacking == LEAST - 3


def test_an_answer_that_nobody_read_leaves_figures_open() -> None:
    """Of referred studies alone, sensitivity would be 1."""
    found = measure(tally([*read("referred", "pneumonia", 30), *others("normal/far", 500)], THRESHOLD)).observed
    for name in ("product_sensitivity", "product_npv", "prevalence", "threshold_sensitivity"):
        assert found[name].interval is None, name
        assert "normal" in found[name].why
    assert found["product_ppv"].interval is not None


def test_nothing_is_measured_of_nothing() -> None:
    found = measure(tally([], THRESHOLD), 0.01)
    assert all(each.interval is None for each in (*found.observed.values(), *found.at_prevalence.values()))


def test_without_a_threshold_only_the_product_is_measured() -> None:
    found = measure(tally(WARD, None)).observed
    assert found["threshold_sensitivity"] == Figure(None, "the release's threshold is not known", always_normal=0.0)
    assert found["product_sensitivity"].interval is not None


def test_one_study_a_patient_counts_whatever_it_shows() -> None:
    first = replace(WARD[0], patient="p", case_id="a")
    second = Made("normal/far", patient="p", case_id="b")
    expected = min((first, second), key=lambda each: rank_of(each.case_id))
    for given in ([first, second], [second, first]):
        assert choose_one_a_patient(given) == [expected]
    counted = tally([first, second, Made("normal/far")], THRESHOLD)
    assert (counted.studies, counted.left_out, counted.without_patient) == (2, 1, 1)
    firsts = sum(rank_of(f"{n} a") < rank_of(f"{n} b") for n in range(1000))
    assert abs(firsts - 500) < 65


# --- the simulation


def test_the_simulation_counts_as_the_product_does() -> None:
    world = World(0.9, studies=600, prevalence=0.2, each=2)
    random = np.random.default_rng(3)
    studies = answer_all(world, random, random.random(world.studies))
    chosen, probability = choose(world, studies, 100)
    names = world.strata[0]
    given = [
        Made(
            stratum=names[studies.stratum[n]],
            truth=("normal", "pneumonia")[int(studies.sick[n])] if chosen[n] else None,
            probability=float(probability[n]) if chosen[n] else None,
            score=0.9 if studies.above[n] else 0.1,
            patient=f"patient {n // 2}",
            case_id=case_id,
        )
        for n, case_id in enumerate(world.case_ids)
    ]
    expected, found = tally(given, THRESHOLD), count(world, studies, 100)
    assert found.answers == expected.answers
    assert found.cells == expected.cells
    assert expected.studies == 300


@pytest.mark.parametrize("each", [1, 2])
def test_intervals_hold_the_truth_and_naive_ones_do_not(each: int) -> None:
    """A small form of the benchmark: 24 runs of 4,000 studies."""
    world = World(0.9, studies=4000, prevalence=0.05, each=each)
    covers = covers_of(world)
    for run in range(24):
        simulate_run(world, run, np.random.default_rng(run).random(world.studies), 400, covers)
    for name in FIGURES:
        assert covers[name].shown == 24
        assert covers[name].held >= 21, name
    for name in ("product_specificity", "product_ppv"):
        assert covers[name].naive_held < 5, name


def test_readers_who_err_make_a_release_look_worse() -> None:
    """True .98 looks like .62 to one reader of sensitivity .9 and specificity .98, and like .935 to the rule."""
    world, shown = World(0.98, well=-1.91), {}
    for name, reader in (("one", read_once), ("rule", read_by_rule)):
        values = []
        for run in range(8):
            random = np.random.default_rng(run)
            studies = answer_all(world, random, random.random(world.studies))
            figure = measure(count(world, studies, 4000, reader(studies.sick, random, 0.9, 0.98)))
            sensitivity = figure.observed["product_sensitivity"].interval
            assert sensitivity is not None
            values.append(sensitivity.value)
        shown[name] = float(np.mean(values))
    assert shown["one"] == pytest.approx(0.62, abs=0.04)
    assert shown["rule"] == pytest.approx(0.935, abs=0.04)


def test_the_largest_weight_counts_though_nothing_was_missed() -> None:
    """No miss in 100 readings that stand for 100 studies each: the limit is that of one which was not seen."""
    cells = {
        Cell("referred", True, 1.0, True): 100,
        Cell("normal", False, 0.01, False): 100,
        Cell("normal", False, 0.1, False): 50,
    }
    found = measure(Tally({"referred": 100, "normal": 10_500}, cells)).observed["product_sensitivity"].interval
    assert found is not None
    assert found.high == 1.0
    assert found.low < 0.35
