"""The stop rule of a site: which alarms of drift, how many windows in a row, may stop a release by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.monitoring.drift_watch import SourceDrift, Window
from pneumoserve.monitoring.plan import PlanSettings, load_plan

# How often a window alarms falsely beside one of the worst baselines. Windows that share a baseline share its luck, so
# that the rate over all baselines would promise too much.
_WORST_FALSE_ALARMS: Final = 0.02


class StopPlan(PlanSettings):
    """When drift stops a release. It is fixed beforehand, and stops only: a person resumes.

    A window is a look. A source's looks begin with its baseline, and a new baseline begins them anew.
    """

    site: str | None = Field(
        default=None, min_length=1, max_length=100, description="the verified caller whose sources count; null: all"
    )
    alarm: Literal["images", "case_mix", "any"] = Field(description="which explanation of an alarm counts")
    windows: int = Field(ge=1, le=10, description="so many windows of one source in a row must alarm")
    looks: int = Field(ge=1, le=1000, description="windows of a source after its baseline; later ones stop nothing")

    @property
    def digest(self) -> Sha256:
        """SHA-256 of the plan as canonical JSON."""
        return digest_of(canonical_json(self))

    @property
    def false_stops(self) -> float:
        """How likely at most a source that does not change stops the release within its looks, beside a bad baseline.

        By Boole's inequality over where a run of alarms can begin.
        """
        return min(1.0, max(0, self.looks - self.windows + 1) * _WORST_FALSE_ALARMS**self.windows)

    def covers(self, each: SourceDrift) -> bool:
        """Whether a source counts."""
        return self.site in {None, each.source.site}

    def find_stop(self, found: Sequence[SourceDrift], resumed: str | None) -> tuple[SourceDrift, list[Window]] | None:
        """The first source that stops the release, with the windows that do; None where none does.

        What a person had before them who resumed the release, at `resumed`, does not stop it again.
        """
        for each in filter(self.covers, found):
            run: list[Window] = []
            for window in each.windows[: self.looks]:
                run = [*run, window] if self._counts(window, resumed) else []
                if len(run) == self.windows:
                    return each, run
        return None

    def list_spent(self, found: Sequence[SourceDrift]) -> list[SourceDrift]:
        """Sources whose looks are all taken, so that nothing stops the release for them any more."""
        return [each for each in found if self.covers(each) and len(each.windows) > self.looks]

    def _counts(self, window: Window, resumed: str | None) -> bool:
        result = window.comparison
        is_meant = result.alarm and self.alarm in {"any", result.cause}
        return is_meant and (resumed is None or window.first > resumed)


def load_stop_plan(path: Path) -> StopPlan:
    """A plan from a YAML file.

    Raises:
        SitePlanError: it is no plan, or there is no such file.
    """
    return load_plan(StopPlan, path, "docs/how-to/watch-drift.md")
