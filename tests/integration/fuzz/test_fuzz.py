"""The corpus and some hundreds of mutants, on every run; `make fuzz` for more."""

from __future__ import annotations

from pathlib import Path

from pneumoserve.imaging.prepare import prepare
from tests.integration.fuzz.mutators import make_mutant
from tests.integration.fuzz.oracles import judge
from tests.integration.fuzz.runner import Report, Runner
from tests.integration.fuzz.seeds import seeds

CORPUS = Path(__file__).parents[2] / "data" / "fuzz"
_REFUSED = {"jpeg-cmyk", "jpeg-12-bit", "jpeg-lossless"}


def test_seeds_are_accepted_and_stored_without_the_patient() -> None:
    ends = {name: judge(data, prepare) for name, data in seeds().items()}
    assert {name for name, end in ends.items() if end.outcome != "accepted"} == _REFUSED
    assert {name: end.fault for name, end in ends.items() if end.fault} == {}


def test_the_same_number_makes_the_same_mutant() -> None:
    assert [make_mutant(number) for number in range(200)] == [make_mutant(number) for number in range(200)]
    assert len({make_mutant(number)[1] for number in range(200)}) > 190


def test_corpus_breaks_no_rule() -> None:
    paths = sorted(map(str, CORPUS.iterdir()))
    assert len(paths) > 50
    assert_no_faults(Runner().run(iter(paths), 240), len(paths))


def test_hundreds_of_mutants_break_no_rule() -> None:
    assert_no_faults(Runner().run(map(str, range(10**6, 10**6 + 400)), 240), 400)


def assert_no_faults(report: Report, films: int) -> None:
    assert report.faults == {}, report.text()
    assert sum(report.outcomes.values()) == films
