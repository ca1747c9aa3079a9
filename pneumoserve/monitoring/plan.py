"""The plan of an acceptance: what must be shown, on how many patients, in how many looks. It is fixed beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.monitoring.power import level_of_look, power
from pneumoserve.yaml_files import YamlFile

Share = Annotated[float, Field(gt=0, lt=1)]
# Figures that are to be high; the others are to be low.
LEAST: Final = ("sensitivity", "product_sensitivity", "specificity")
# Figures among patients with pneumonia; the others are among those without.
OF_SICK: Final = ("sensitivity", "product_sensitivity", "referred_among_pneumonias")


class SitePlanError(PneumoserveError):
    """A plan that cannot be followed; the sentence says what to change."""

    exit_code = 2


class PlanSettings(BaseModel):
    """What all plans have in common: they are fixed, and say nothing that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, alias_generator=to_camel)


_Plan = TypeVar("_Plan", bound=PlanSettings)


class Figures(PlanSettings):
    """One value for each figure that the plan names."""

    sensitivity: Share | None = Field(default=None, description="of the threshold, whether or not an image is referred")
    product_sensitivity: Share | None = Field(
        default=None, description="of the product: a pneumonia is missed if it is confidently normal"
    )
    specificity: Share | None = Field(default=None, description="of the threshold")
    confident_false_alarms: Share | None = Field(
        default=None, description="of images without pneumonia, those that are confidently pneumonia"
    )
    referred_among_normals: Share | None = Field(default=None, description="for their finding, type aside")
    referred_among_pneumonias: Share | None = Field(default=None, description="for their finding, type aside")

    @property
    def named(self) -> dict[str, float]:
        """Those that have a value, in their order."""
        return {name: value for name, value in self if value is not None}


class AcceptancePlan(PlanSettings):
    """What a release must show at a site before it answers there. All criteria must hold.

    `criteria`: sensitivities and specificity are at least these, the other figures at most. Each must be shown by a
    one-sided bound. Since all must hold, they share no alpha (intersection-union test, Berger 1982). Looks do.
    """

    site: str = Field(min_length=1, max_length=100)
    reference: str = Field(min_length=1, max_length=300, description="who says what an image shows, and how")
    drawn: Literal["consecutive", "random", "weighted"] = Field(
        description="all images of a period; some that chance drew; or weighted: labels of the archive, each by the "
        "inverse of its probability of being read"
    )
    sick_patients: int = Field(ge=1, le=20_000, description="patients with pneumonia at the last look")
    well_patients: int = Field(ge=1, le=20_000, description="patients without, at the last look")
    looks: int = Field(default=1, ge=1, le=10)
    alpha: float = Field(default=0.05, gt=0, le=0.2, description="one-sided, shared by all looks")
    criteria: Figures
    expected: Figures = Field(description="what you believe is true, for the power; one for each criterion")

    @model_validator(mode="after")
    def _check(self) -> Self:
        criteria, expected = self.criteria.named, self.expected.named
        if not criteria:
            raise ValueError("criteria must name a figure")
        if criteria.keys() != expected.keys():
            raise ValueError("expected must name the same figures as criteria")
        for name, limit in criteria.items():
            if (expected[name] <= limit) if name in LEAST else (expected[name] >= limit):
                raise ValueError(f"expected {to_camel(name)} must be better than its criterion, or nothing can show it")
        return self

    @property
    def digest(self) -> Sha256:
        """SHA-256 of the plan as canonical JSON."""
        return digest_of(canonical_json(self))

    def check_drawn(self, of_archive: bool) -> None:
        """See that the labels are chosen as the plan says: only those of the archive are weighted.

        Raises:
            SitePlanError: they are not.
        """
        if of_archive and self.drawn != "weighted":
            raise SitePlanError(
                f"This plan is for images that are {self.drawn}; labels of the archive take one with `drawn: weighted`."
            )
        if self.drawn == "weighted" and not of_archive:
            raise SitePlanError(
                "This plan is for labels of the archive: give `--dataset labels`, or a plan that says whether the "
                "images are consecutive or random."
            )

    def patients_at(self, look: int) -> tuple[int, int]:
        """How many patients with and without pneumonia a look takes, at least."""
        return -(-self.sick_patients * look // self.looks), -(-self.well_patients * look // self.looks)

    def power(self) -> dict[str, float]:
        """How probable it is that the last look shows each criterion, where the expected values are true."""
        level = level_of_look(self.alpha, self.looks, self.looks)
        found = {}
        for name, limit in self.criteria.named.items():
            patients = self.sick_patients if name in OF_SICK else self.well_patients
            truth = self.expected.named[name]
            # An upper bound of a rate is a lower bound of its complement.
            least, true_rate = (limit, truth) if name in LEAST else (1 - limit, 1 - truth)
            found[name] = power(least, true_rate, patients, level)
        return found


def load_acceptance_plan(path: Path) -> AcceptancePlan:
    """A plan from a YAML file.

    Raises:
        SitePlanError: it is no plan, or there is no such file.
    """
    return load_plan(AcceptancePlan, path, "docs/how-to/accept-a-release.md")


def load_plan(model: type[_Plan], path: Path, page: str) -> _Plan:
    """A plan of a kind from a YAML file; `page` is the document that shows one.

    Raises:
        SitePlanError: it is no plan, or there is no such file.
    """
    return YamlFile(model, "The plan", page, SitePlanError).load(path)
