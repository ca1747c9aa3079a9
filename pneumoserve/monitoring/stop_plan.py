"""The stop rules of a site: which alarms of drift, and which metrics, may stop a release by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.monitoring.plan import PlanSettings, Share, SitePlanError, load_plan
from pneumoserve.monitoring.power import level_of_look

if TYPE_CHECKING:
    from pneumoserve.monitoring.drift_watch import SourceDrift, Window

# How often a window alarms falsely beside one of the worst baselines. Windows that share a baseline share its luck, so
# that the rate over all baselines would promise too much.
_WORST_FALSE_ALARMS: Final = 0.02
# Figures that are to be high; the others are to be low.
AT_LEAST: Final = ("product_sensitivity", "threshold_sensitivity", "threshold_specificity")


class DriftRule(PlanSettings):
    """When drift stops a release. A window is a look: a source's begin with its baseline, and anew with a new one."""

    alarm: Literal["images", "case_mix", "any"] = Field(description="which explanation of an alarm counts")
    windows: int = Field(ge=1, le=10, description="so many windows of one source in a row must alarm")
    looks: int = Field(ge=1, le=1000, description="windows of a source after its baseline; later ones stop nothing")

    @property
    def false_stops(self) -> float:
        """How likely at most a source that does not change stops the release within its looks, beside a bad baseline.

        By Boole's inequality over where a run of alarms can begin.
        """
        return min(1.0, max(0, self.looks - self.windows + 1) * _WORST_FALSE_ALARMS**self.windows)

    def find_stop(self, found: Sequence[SourceDrift], resumed: str | None) -> tuple[SourceDrift, list[Window]] | None:
        """The first source that stops the release, with the windows that do; None where none does.

        What a person had before them who resumed the release, at `resumed`, does not stop it again.
        """
        for each in found:
            run: list[Window] = []
            for window in each.windows[: self.looks]:
                run = [*run, window] if self._counts(window, resumed) else []
                if len(run) == self.windows:
                    return each, run
        return None

    def list_spent(self, found: Sequence[SourceDrift]) -> list[SourceDrift]:
        """Sources whose looks are all taken, so that nothing stops the release for their drift any more."""
        return [each for each in found if len(each.windows) > self.looks]

    def _counts(self, window: Window, resumed: str | None) -> bool:
        result = window.comparison
        is_meant = result.alarm and self.alarm in {"any", result.cause}
        return is_meant and (resumed is None or window.first > resumed)


class Limits(PlanSettings):
    """One limit for each figure that the plan names: sensitivities and specificity at least, the others at most."""

    product_sensitivity: Share | None = Field(
        default=None, description="at least: a pneumonia is missed if it is confidently normal"
    )
    threshold_sensitivity: Share | None = Field(default=None, description="at least: of the score alone")
    threshold_specificity: Share | None = Field(default=None, description="at least: of the score alone")
    false_alarm_rate: Share | None = Field(
        default=None, description="at most: of studies without pneumonia, those that are confidently pneumonia"
    )
    misses_per_1000: Annotated[float, Field(gt=0, lt=1000)] | None = Field(
        default=None, description="at most: of 1,000 studies, the pneumonias that are confidently normal"
    )
    referral_rate: Share | None = Field(default=None, description="at most: of all studies")

    @property
    def named(self) -> dict[str, float]:
        """Those that have a value, in their order."""
        return {name: value for name, value in self if value is not None}


class MetricsRule(PlanSettings):
    """When metrics stop a release: once a bound shows that a figure is beyond its limit.

    A look is at the studies of all days from `since` to its own day. Looks share alpha, and so do limits.
    """

    since: date = Field(description="first day (UTC) of answers that count")
    days: int = Field(ge=1, le=366, description="a look follows the one before after so many days")
    looks: int = Field(ge=1, le=100, description="later ones stop nothing")
    closed_after: int = Field(
        default=14, ge=1, le=366, description="days after its answer until a study counts; what is said later does not"
    )
    alpha: float = Field(
        default=0.05, gt=0, le=0.2, description="how likely at most a release that keeps all limits is stopped"
    )
    limits: Limits

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.limits.named:
            raise ValueError("limits must name a figure")
        return self

    def level(self, look: int) -> float:
        """The level of each bound of a look, the first of which is 1."""
        return level_of_look(self.alpha / len(self.limits.named), self.looks, look)

    def end_of(self, look: int) -> datetime:
        """The day after the last one whose studies a look is at, the first of which is 1."""
        return datetime.combine(self.since, datetime.min.time(), UTC) + timedelta(days=look * self.days)

    def list_due(self, now: datetime) -> list[int]:
        """The looks whose studies all count by now."""
        days = timedelta(days=self.closed_after)
        return [look for look in range(1, self.looks + 1) if self.end_of(look) + days <= now]


class StopPlan(PlanSettings):
    """When drift, or what people read, stops a release. It is fixed beforehand, and stops only: a person resumes."""

    site: str | None = Field(
        default=None, min_length=1, max_length=100, description="the verified caller whose studies count; null: all"
    )
    drift: DriftRule | None = Field(default=None, description="the rule that `pneumoserve drift --plan` follows")
    metrics: MetricsRule | None = Field(default=None, description="the rule that `pneumoserve metrics --plan` follows")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.drift is None and self.metrics is None:
            raise ValueError("it must have a rule, drift or metrics")
        return self

    @property
    def digest(self) -> Sha256:
        """SHA-256 of the plan as canonical JSON."""
        return digest_of(canonical_json(self))

    @property
    def author(self) -> str:
        """Who stops a release where the plan does."""
        return self.site or "the site's plan"

    def select(self, found: Sequence[SourceDrift]) -> list[SourceDrift]:
        """The sources that count."""
        return [each for each in found if self.site in {None, each.source.site}]

    def rule_of_drift(self) -> DriftRule:
        """The rule of drift.

        Raises:
            SitePlanError: there is none.
        """
        if self.drift is None:
            raise SitePlanError("This plan has no rule of drift; add `drift`, or give it to `pneumoserve metrics`.")
        return self.drift

    def rule_of_metrics(self) -> MetricsRule:
        """The rule of metrics.

        Raises:
            SitePlanError: there is none.
        """
        if self.metrics is None:
            raise SitePlanError("This plan has no rule of metrics; add `metrics`, or give it to `pneumoserve drift`.")
        return self.metrics


def load_stop_plan(path: Path) -> StopPlan:
    """A plan from a YAML file.

    Raises:
        SitePlanError: it is no plan, or there is no such file.
    """
    return load_plan(StopPlan, path, "docs/how-to/watch-drift.md")
