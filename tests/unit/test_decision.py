"""The decision, over its whole table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumoserve.decision import (
    Band,
    Decision,
    Policy,
    Population,
    Scores,
    at_prevalence,
    decide,
    needs_type,
    of_study,
)
from pneumoserve.imaging import Facts

POLICY = Policy(
    detector_threshold=0.3,
    detector_band=Band(low=0.2, high=0.6),
    typer_threshold=0.5,
    typer_band=Band(low=0.4, high=0.7),
    chest_threshold=0.25,
    population=Population(min_age_years=1, below_age_years=6, unknown_dicom_age="refer"),
    assumed_prevalence=0.3,
    why="a table to test with",
)
PLAIN = Facts()
CHILD = Facts(modality="CR", body_part="CHEST", view_position="PA", age_years=3.0)


def answer(
    pneumonia: float | None,
    bacterial: float | None = None,
    facts: Facts = PLAIN,
    dicom: bool = False,
    chest: float | None = 1.0,
) -> Decision:
    return decide(POLICY, facts, dicom, Scores(pneumonia, bacterial, chest))


def test_confident_normal() -> None:
    assert answer(0.1) == Decision(
        finding="normal", pneumonia_type=None, confidence=0.9, referred=False, reasons=(), leaning="normal"
    )


@pytest.mark.parametrize(
    ("bacterial", "kind", "type_probability"),
    [(0.7, "bacterial", 0.7), (0.99, "bacterial", 0.99), (0.25, "viral", 0.75)],
)
def test_confident_pneumonia_of_a_type(bacterial: float, kind: Any, type_probability: float) -> None:
    assert answer(0.9, bacterial) == Decision(
        finding="pneumonia",
        pneumonia_type=kind,
        confidence=0.9,
        referred=False,
        reasons=(),
        leaning="pneumonia",
        type_probability=type_probability,
    )


def test_an_uncertain_type_refers_the_type_and_keeps_the_finding() -> None:
    assert answer(0.9, 0.5) == Decision(
        finding="pneumonia",
        pneumonia_type=None,
        confidence=0.9,
        referred=True,
        reasons=("uncertain_type",),
        leaning="pneumonia",
    )


@pytest.mark.parametrize("pneumonia", [0.2, 0.3, 0.5999])
def test_an_uncertain_finding_is_none(pneumonia: float) -> None:
    decision = answer(pneumonia)
    assert decision.finding is None
    assert decision.referred
    assert decision.reasons == ("uncertain_finding",)
    assert decision.confidence == max(pneumonia, 1 - pneumonia)
    assert decision.leaning == ("normal" if pneumonia < 0.5 else "pneumonia")


def test_a_leg_is_no_chest_film_and_needs_no_model() -> None:
    assert answer(None, facts=Facts(body_part="EXTREMITY"), dicom=True) == Decision(
        finding=None, pneumonia_type=None, confidence=None, referred=True, reasons=("not_a_chest_film",)
    )


@pytest.mark.parametrize(
    ("facts", "dicom", "reasons"),
    [
        (CHILD, True, ()),
        (Facts(body_part="CHEST", age_years=0.9), True, ("outside_population",)),
        (Facts(body_part="CHEST", age_years=1.0), True, ()),
        (Facts(body_part="CHEST", age_years=5.99), True, ()),
        (Facts(body_part="CHEST", age_years=6.0), True, ("outside_population",)),
        (Facts(body_part="CHEST"), True, ("outside_population",)),
        (Facts(), False, ()),
        (Facts(body_part="CHEST", age_years=3.0, view_position="LATERAL"), True, ("lateral_view",)),
    ],
)
def test_population_and_view(facts: Facts, dicom: bool, reasons: tuple[str, ...]) -> None:
    decision = answer(0.05, facts=facts, dicom=dicom)
    assert decision.reasons == reasons
    assert decision.finding == (None if reasons else "normal")
    assert decision.referred == bool(reasons)


def test_a_missing_probability_is_a_fault_not_a_normal() -> None:
    with pytest.raises(ValueError, match="detector"):
        answer(None)
    with pytest.raises(ValueError, match="typer"):
        answer(0.9)
    with pytest.raises(ValueError, match="gate"):
        answer(0.1, chest=None)


@pytest.mark.parametrize("pneumonia", [0.0, 0.3, 1.0])
def test_what_the_gate_takes_for_no_chest_film_has_no_finding(pneumonia: float) -> None:
    assert answer(pneumonia, chest=0.2499) == Decision(
        finding=None, pneumonia_type=None, confidence=None, referred=True, reasons=("not_a_chest_film",)
    )
    assert not needs_type(POLICY, Scores(pneumonia, chest=0.2499))
    assert answer(pneumonia, 0.9, chest=0.25) == answer(pneumonia, 0.9)


def test_a_release_without_a_gate_takes_every_film_for_a_chest_film() -> None:
    before = POLICY.model_copy(update={"chest_threshold": None})
    assert decide(before, PLAIN, False, Scores(0.1)) == answer(0.1)


probability = st.floats(0, 1)


@given(probability, probability, probability, st.sampled_from([PLAIN, CHILD, Facts(age_years=50.0)]), st.booleans())
def test_nothing_is_ever_silently_normal(
    pneumonia: float, bacterial: float, chest: float, facts: Facts, dicom: bool
) -> None:
    decision = answer(pneumonia, bacterial, facts, dicom, chest)
    assert decision.referred == bool(decision.reasons)
    if decision.finding == "normal":
        assert pneumonia < POLICY.detector_band.low
        assert chest >= 0.25
        assert not decision.referred
    if decision.finding is not None:
        assert decision.leaning == decision.finding
    assert (decision.leaning is None) == (decision.confidence is None) == ("not_a_chest_film" in decision.reasons)
    assert (decision.type_probability is None) == (decision.pneumonia_type is None)
    assert decision.confidence in {None, pneumonia if decision.leaning == "pneumonia" else 1 - pneumonia}
    if decision.finding == "pneumonia":
        assert needs_type(POLICY, Scores(pneumonia, chest=chest))
        assert (decision.pneumonia_type is None) == decision.referred


def made(finding: Any, confidence: float | None, *reasons: Any, kind: Any = None, leaning: Any = None) -> Decision:
    return Decision(
        finding=finding,
        pneumonia_type=kind,
        confidence=confidence,
        referred=bool(reasons),
        reasons=reasons,
        leaning=leaning or finding,
        type_probability=0.8 if kind else None,
    )


NORMAL, SURER = made("normal", 0.8), made("normal", 0.95)
ILL, ILLER = made("pneumonia", 0.9, "uncertain_type"), made("pneumonia", 0.99, kind="viral")
UNSURE, LEG = made(None, 0.6, "uncertain_finding", leaning="pneumonia"), made(None, None, "not_a_chest_film")
# Surer than `UNSURE`, and less likely to show pneumonia.
UNSURE_NORMAL = made(None, 0.97, "uncertain_finding", leaning="normal")


@pytest.mark.parametrize(
    ("films", "whole"),
    [
        ([SURER], SURER),
        ([SURER, NORMAL], NORMAL),
        ([NORMAL, LEG], made(None, None, "not_a_chest_film")),
        ([LEG, UNSURE, NORMAL], made(None, 0.6, "uncertain_finding", "not_a_chest_film", leaning="pneumonia")),
        ([UNSURE_NORMAL, UNSURE], UNSURE),
        ([LEG, UNSURE_NORMAL], UNSURE_NORMAL.model_copy(
            update={"reasons": ("uncertain_finding", "not_a_chest_film")}
        )),
        ([NORMAL, ILLER], ILLER),
        ([ILL, ILLER, UNSURE], ILLER.model_copy(
            update={"referred": True, "reasons": ("uncertain_finding", "uncertain_type")}
        )),
    ],
)  # fmt: skip
def test_a_study_is_its_most_serious_film_and_referred_if_any_is(films: list[Decision], whole: Decision) -> None:
    assert of_study(films) == whole
    assert of_study(films[::-1]) == whole


def test_a_confidence_is_another_one_where_fewer_are_sick() -> None:
    """By hand: .90 where half are sick is odds of 9; at 1 % these are 9 / 99."""
    assert at_prevalence(0.9, 0.5, 0.01) == pytest.approx(9 / 108)
    assert at_prevalence(0.2, 0.3, 0.3) == pytest.approx(0.2)
    assert (at_prevalence(0.0, 0.5, 0.01), at_prevalence(1.0, 0.5, 0.01)) == (0.0, 1.0)


@given(st.floats(0.001, 0.999), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_prevalence_taken_there_and_back_changes_nothing(probability: float, assumed: float, other: float) -> None:
    there = at_prevalence(probability, assumed, other)
    assert at_prevalence(there, other, assumed) == pytest.approx(probability)
    assert (there >= probability) == (other >= assumed) or there == pytest.approx(probability)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, 2.0])
def test_no_prevalence_is_none_or_all(prevalence: float) -> None:
    for pair in ((0.5, prevalence), (prevalence, 0.5)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            at_prevalence(0.9, *pair)
