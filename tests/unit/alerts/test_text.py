"""What alerts say, and the links that they hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from cryptography.fernet import Fernet

from pneumoserve.alerts import ADVICE, WHY, LinkError, Links
from pneumoserve.alerts.advice import write_alert
from pneumoserve.decision import STOPPED
from pneumoserve.ids import uuid7
from pneumoserve.records import AlertReason
from pneumoserve.review import study_number
from pneumoserve.review.derive import alert_reasons, severity_of

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_every_reason_has_an_advice() -> None:
    assert set(WHY) == set(ADVICE) == set(get_args(AlertReason))


def test_the_advice_follows_the_reason() -> None:
    assert "blood test" in ADVICE["uncertain_finding"]
    assert "expert" in ADVICE["uncertain_finding"]
    assert "at once" in ADVICE["pneumonia"]
    assert "never withhold antibiotics" in ADVICE["uncertain_type"]
    assert "pattern only" in ADVICE["uncertain_type"]


def test_a_text_tells_nothing_but_why_what_to_do_and_a_number() -> None:
    case = "f" * 64
    text = write_alert(case, 0, ("pneumonia", "uncertain_type"), "https://room.example/alerts/x")
    assert text.body.count("\n") == 7
    assert case not in text.body
    assert f"Study number: {study_number(case)}" in text.body
    assert "https://room.example/alerts/x" in text.body
    assert study_number(case) not in text.subject
    assert write_alert(case, 2, ("pneumonia",), None).lines[0].startswith("Nobody has answered")


def test_a_link_leads_to_its_alert() -> None:
    older, newer = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    alert = uuid7()
    token = Links([older]).make(alert, NOW)
    assert Links([newer, older]).alert_of(token, NOW + timedelta(days=13)) == alert
    assert token != Links([older]).make(alert, NOW)
    assert alert not in token


@pytest.mark.parametrize(
    "token", ["", "x", "a" * 10_000, "ü", "../../etc/passwd", "'; drop table alerts", "=" * 100, "gAAAA\n"]
)
def test_an_altered_link_leads_nowhere(token: str) -> None:
    links = Links([Fernet.generate_key().decode()])
    with pytest.raises(LinkError, match="not whole"):
        links.alert_of(token, NOW)
    whole = links.make(uuid7(), NOW)
    for at in range(0, len(whole), 7):
        changed = whole[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1 :]
        with pytest.raises(LinkError, match="not whole"):
            links.alert_of(changed, NOW)


def test_an_old_link_leads_nowhere() -> None:
    links = Links([Fernet.generate_key().decode()])
    with pytest.raises(LinkError, match="older than 14 days"):
        links.alert_of(links.make(uuid7(), NOW), NOW + timedelta(days=15))


@pytest.mark.parametrize("content", ["", "short", "ü" * 44])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "links.key").write_text(content)
    with pytest.raises(LinkError, match=r"links\.key holds no keys"):
        Links.read(tmp_path / "links.key")
    with pytest.raises(LinkError):
        Links.read(tmp_path / "none")


def test_a_stopped_release_alerts_nobody_for_each_image() -> None:
    """All its answers are referred: the reading room has them, and urgent alerts would be a flood."""
    assert severity_of(STOPPED) == "listed"
    assert "as if there were no model" in write_alert("a" * 64, 0, alert_reasons(STOPPED), None).body
