"""Retention: the store's own lifecycle rules remove what is older than a number of days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Final
from xml.etree import ElementTree as ET

from pneumoserve.archive.films import IMAGES
from pneumoserve.archive.seals import ROLLUPS
from pneumoserve.archive.segment import RECORDS
from pneumoserve.archive.store import ObjectStore

# Rules whose ids begin like this are ours; others are never touched.
_OURS: Final = "pneumoserve-"
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_SECONDS_A_DAY: Final = 86_400


class RetentionError(ValueError):
    """A wish that contradicts what is locked; the text says what to change."""


@dataclass(frozen=True)
class Expiry:
    """After how many days what is removed; None keeps it."""

    raw: int | None = None
    images: int | None = None
    rollups: int | None = None

    @property
    def by_prefix(self) -> dict[str, tuple[str, int]]:
        """Prefix → name of the rule, days."""
        wanted = {RECORDS: ("raw", self.raw), IMAGES: ("images", self.images), ROLLUPS: ("rollups", self.rollups)}
        return {prefix: (name, days) for prefix, (name, days) in wanted.items() if days is not None}


def set_expiry(store: ObjectStore, expiry: Expiry) -> bool:
    """Make the bucket's rules say `expiry`, and leave rules that are not ours as they are; whether that changed any.

    Raises:
        RetentionError: something is locked for longer than it would be kept.
        StoreError: the store does not answer, or its keys may not write rules.
    """
    for prefix, (name, days) in expiry.by_prefix.items():
        locked = _locked_days(store, prefix)
        if days < locked:
            raise RetentionError(
                f"{prefix} is locked for {locked} days, so it cannot be removed after {days}: "
                f"give --expire-{name}-days {locked} or more, or shorten the lock."
            )
    before = store.lifecycle()
    rules = [] if before is None else list(_rules(before))
    wanted = [rule for rule in rules if not _is_ours(rule)]
    for prefix, (name, days) in expiry.by_prefix.items():
        wanted += _our_rules(prefix, name, days)
    if [_facts(rule) for rule in wanted] == [_facts(rule) for rule in rules]:
        return False
    store.set_lifecycle(_document(wanted) if wanted else None)
    return True


def _locked_days(store: ObjectStore, prefix: str) -> int:
    """For how many days what is written below a prefix now is locked, by its newest folder's first object."""
    folder = prefix
    while below := list(store.folders(folder)):
        folder = below[-1]
    newest = next(store.list(folder), None)
    until = None if newest is None else store.locked_until(newest.key)
    if newest is None or until is None:
        return 0
    # Clocks differ by seconds, locks by days.
    return max(0, round((until - newest.last_modified.astimezone(UTC)).total_seconds() / _SECONDS_A_DAY))


def _our_rules(prefix: str, name: str, days: int) -> Iterator[ET.Element]:
    # The bucket keeps versions: expiry only hides an object, the second part removes it, the second rule its marker.
    yield _rule(
        f"{_OURS}{name}", prefix, {"Expiration": {"Days": days}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    )
    yield _rule(f"{_OURS}{name}-markers", prefix, {"Expiration": {"ExpiredObjectDeleteMarker": "true"}})


def _rule(name: str, prefix: str, actions: dict[str, dict[str, object]]) -> ET.Element:
    rule = _element("Rule")
    _element("ID", name, rule)
    _element("Status", "Enabled", rule)
    _element("Prefix", prefix, _element("Filter", None, rule))
    for action, values in actions.items():
        part = _element(action, None, rule)
        for key, value in values.items():
            _element(key, str(value), part)
    return rule


def _element(tag: str, text: str | None = None, within: ET.Element | None = None) -> ET.Element:
    qualified = f"{{{_NAMESPACE}}}{tag}"
    element = ET.Element(qualified) if within is None else ET.SubElement(within, qualified)
    element.text = text
    return element


def _document(rules: list[ET.Element]) -> bytes:
    root = _element("LifecycleConfiguration")
    root.extend(rules)
    return ET.tostring(root, default_namespace=_NAMESPACE)


def _rules(document: bytes) -> Iterator[ET.Element]:
    root = ET.fromstring(document)  # noqa: S314 - the store is ours, and the client itself reads it so
    for element in root.iter():
        # Servers answer with and without the namespace.
        element.tag = f"{{{_NAMESPACE}}}{element.tag.rpartition('}')[2]}"
    yield from root


def _is_ours(rule: ET.Element) -> bool:
    return (rule.findtext(f"{{{_NAMESPACE}}}ID") or "").startswith(_OURS)


def _facts(rule: ET.Element) -> list[tuple[str, str]]:
    return sorted((element.tag, (element.text or "").strip()) for element in rule.iter())
