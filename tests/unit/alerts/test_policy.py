"""The policy of alerts: what is refused, and who is told at which hour."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumoserve.alerts import AlertPolicy, AlertPolicyError, load_policy
from tests.support.alerts import MAIL, PAGER, ROUTED, STEPS, policy_of

ROOT = Path(__file__).parents[3]
LAST = {"name": "all", "steps": STEPS}
MONDAY = datetime(2026, 11, 30, 12, tzinfo=UTC)


def written(tmp_path: Path, document: Any) -> Path:
    file = tmp_path / "alerts.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return file


def test_the_default_sends_nothing() -> None:
    policy = load_policy(None)
    assert policy == AlertPolicy()
    assert policy.route(None, "urgent", MONDAY) is None
    assert policy.also_alert == ()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("channels:\n  mail: [unclosed\n", "no YAML in line 3"),
        ("\tchannels: {}", "no YAML in line 1"),
        ("- a list", "has no names with values"),
        ({**ROUTED, "colour": 1}, "colour: Extra inputs"),
        (
            {**ROUTED, "channels": {"mail": {**MAIL, "kind": "pigeon"}}},
            "channels.mail: .*'webhook', 'email', 'apprise'",
        ),
        ({**ROUTED, "channels": {"mail": MAIL}}, "there is no channel pager; add it under channels"),
        ({**ROUTED, "operator": ["ops"]}, "there is no channel ops"),
        ({**ROUTED, "routes": [{**LAST, "sites": ["a"]}]}, "the last route takes all alerts"),
        ({**ROUTED, "eraseNamesDays": 181}, "keepNamesDays is shorter than eraseNamesDays"),
        ({**ROUTED, "routes": [LAST, LAST]}, "only the last route takes all alerts"),
        ({**ROUTED, "routes": [{"name": "all", "steps": STEPS[:1]}]}, "say `who` is reached"),
        ({**ROUTED, "routes": [{"name": "all", "steps": STEPS[1:]}]}, "begins with 0 and rises"),
        (
            {**ROUTED, "channels": {"mail": {**MAIL, "to": ["a@b\nBcc: c@d"]}}},
            "channels.mail.email.to.0",
        ),
        ({**ROUTED, "channels": {"mail": {**MAIL, "tls": "none"}, "pager": PAGER}}, "channels.mail.email.tls"),
        (
            {**ROUTED, "channels": {"mail": MAIL, "pager": {**PAGER, "url": "http://a.b/", "shows": ["reference"]}}},
            "a channel that shows names needs an https",
        ),
        ({**ROUTED, "channels": {"mail": {**MAIL, "caFile": "ca.pem"}, "pager": PAGER}}, "names ca.pem, which is not"),
        ({**ROUTED, "timeZone": "Mars/Base"}, "timeZone: .*is no time zone"),
        ({**ROUTED, "link": "https://room.example/alerts"}, "link: "),
        ({**ROUTED, "alsoAlert": ["pneumonia"]}, "alsoAlert.0"),
    ],
)
def test_a_policy_that_cannot_be_followed_says_why(tmp_path: Path, document: Any, says: str) -> None:
    with pytest.raises(AlertPolicyError, match=says):
        load_policy(written(tmp_path, document))


def test_one_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(AlertPolicyError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")
    (tmp_path / "alerts.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(AlertPolicyError, match="no UTF-8"):
        load_policy(tmp_path / "alerts.yaml")


def test_files_lie_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    policy = load_policy(
        written(tmp_path, {**ROUTED, "channels": {"mail": {**MAIL, "caFile": "ca.pem"}, "pager": PAGER}})
    )
    assert policy.channels["mail"].ca_file == tmp_path / "ca.pem"


def test_a_route_is_found_by_site_severity_and_hour() -> None:
    day = {"name": "day", "sites": ["clinic-a"], "hours": {"days": ["mon"], "from": "08:00", "until": "18:00"}}
    night = {"name": "night", "hours": {"days": ["sun"], "from": "22:00", "until": "06:00"}, "severities": ["urgent"]}
    policy = policy_of(timeZone="Europe/Berlin", routes=[{**day, "steps": STEPS}, {**night, "steps": STEPS}, LAST])

    def name(site: str | None, severity: Any, moment: str) -> str:
        route = policy.route(site, severity, datetime.fromisoformat(moment))
        assert route is not None
        return route.name

    # 07:30 in UTC is 08:30 there in winter.
    assert name("clinic-a", "urgent", "2026-11-30T07:30:00Z") == "day"
    assert name("clinic-a", "urgent", "2026-11-30T17:00:00Z") == "all"
    assert name("clinic-b", "urgent", "2026-11-30T07:30:00Z") == "all"
    assert name("clinic-a", "urgent", "2026-12-01T07:30:00Z") == "all"
    # The night that began on Sunday lasts until Monday.
    assert name(None, "urgent", "2026-11-29T22:30:00Z") == "night"
    assert name(None, "urgent", "2026-11-30T04:30:00Z") == "night"
    assert name(None, "listed", "2026-11-30T04:30:00Z") == "all"
    assert name(None, "urgent", "2026-12-01T04:30:00Z") == "all"


def test_the_documents_policy_can_be_followed(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    # The first one; a later block has values of the chart.
    text, *_ = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    for name in ("mail-password", "webhook-secret", "pager-url"):
        (tmp_path / name).touch()
    policy = load_policy(written(tmp_path, text))
    assert policy.channels["information-system"].shows == ("practitioner", "reference")
    fields = {field.alias or name for name, field in AlertPolicy.model_fields.items()}
    assert {"eraseNamesDays", "keepNamesDays", "sinceDays"} <= fields


def test_its_schema_is_published() -> None:
    schema = json.loads((ROOT / "docs/schemas/alert-policy.schema.json").read_text())
    assert schema["properties"]["routes"]["items"] == {"$ref": "#/$defs/Route"}
