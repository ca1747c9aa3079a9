"""Retention: the store's own lifecycle rules remove what is older than a number of days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final
from xml.etree import ElementTree as ET

from pneumoserve.errors import PneumoserveError
from pneumoserve.store import Store

# Rules whose ids begin like this are ours; others are never touched.
_OURS: Final = "pneumoserve-"
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_SECONDS_A_DAY: Final = 86_400


class RetentionError(PneumoserveError, ValueError):
    """A wish that contradicts what is locked; the text says what to change."""

    exit_code = 2


@dataclass(frozen=True)
class Expiry:
    """What lies below a prefix is removed after so many days, None: never; `name` is what the rule is called by."""

    name: str
    prefix: str
    days: int | None


def list_expiries(store: Store) -> list[Expiry]:
    """What the bucket's rules remove, and after how many days; a rule that is not ours has its whole id as a name.

    Raises:
        StoreError: the store does not answer, or its keys may not read rules.
    """
    document = store.lifecycle()
    found = [] if document is None else [_expiry(rule) for rule in _rules(document) if _is_enabled(rule)]
    return [expiry for expiry in found if expiry.days is not None]


def set_expiry(store: Store, expiries: Sequence[Expiry]) -> bool:
    """Make the rules of these names say `expiries`, and leave all other rules as they are; whether that changed any.

    Raises:
        RetentionError: something is locked for longer than it would be kept.
        StoreError: the store does not answer, or its keys may not read or write rules.
    """
    for expiry in expiries:
        if expiry.days is not None and expiry.days < (locked := _find_lock_days(store, expiry.prefix)):
            raise RetentionError(
                f"{expiry.prefix} is locked for {locked} days, so it cannot be removed after {expiry.days}: "
                f"give --expire-{expiry.name}-days {locked} or more, or shorten the lock."
            )
    before = store.lifecycle()
    rules = [] if before is None else list(_rules(before))
    replaced = {name for expiry in expiries for name in _names(expiry)}
    wanted = [rule for rule in rules if _id(rule) not in replaced]
    for expiry in expiries:
        wanted += _our_rules(expiry)
    if sorted(map(_facts, wanted)) == sorted(map(_facts, rules)):
        return False
    store.set_lifecycle(_document(wanted) if wanted else None)
    return True


def _find_lock_days(store: Store, prefix: str) -> int:
    """For how many days what is written below a prefix now is locked, by its newest folder's first object."""
    folder = prefix
    while below := list(store.folders(folder)):
        folder = below[-1]
    newest = next(store.list(folder), None)
    until = None if newest is None else store.lock_end(newest.key)
    if newest is None or until is None:
        return 0
    # Clocks differ by seconds, locks by days.
    return max(0, round((until - newest.last_modified.astimezone(UTC)).total_seconds() / _SECONDS_A_DAY))


def _names(expiry: Expiry) -> tuple[str, str]:
    """The ids of its two rules."""
    return f"{_OURS}{expiry.name}", f"{_OURS}{expiry.name}-markers"


def _our_rules(expiry: Expiry) -> Iterator[ET.Element]:
    if expiry.days is None:
        return
    # The bucket keeps versions: expiry only hides an object, the second part removes it, the second rule its marker.
    name, markers = _names(expiry)
    removal: dict[str, dict[str, object]] = {
        "Expiration": {"Days": expiry.days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    yield _rule(name, expiry.prefix, removal)
    yield _rule(markers, expiry.prefix, {"Expiration": {"ExpiredObjectDeleteMarker": "true"}})


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


def _tag(name: str) -> str:
    return f"{{{_NAMESPACE}}}{name}"


def _element(tag: str, text: str | None = None, within: ET.Element | None = None) -> ET.Element:
    element = ET.Element(_tag(tag)) if within is None else ET.SubElement(within, _tag(tag))
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
        element.tag = _tag(element.tag.rpartition("}")[2])
    yield from root


def _id(rule: ET.Element) -> str:
    return rule.findtext(_tag("ID")) or ""


def _is_enabled(rule: ET.Element) -> bool:
    return rule.findtext(_tag("Status")) == "Enabled"


def _expiry(rule: ET.Element) -> Expiry:
    days = rule.findtext(f"{_tag('Expiration')}/{_tag('Days')}")
    prefix = next((element.text or "" for element in rule.iter(_tag("Prefix"))), "")
    return Expiry(_id(rule).removeprefix(_OURS), prefix, None if days is None else int(days))


def _facts(rule: ET.Element) -> list[tuple[str, str]]:
    return sorted((element.tag, (element.text or "").strip()) for element in rule.iter())
