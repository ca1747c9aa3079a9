"""The sender: follows the archive, raises alerts, brings them to people, and tells the next one where nobody answers.

All it knows is in the archive and the database that follows it, so it may be killed at any moment, and several may run
at once. A message is sent at least once; its key is the same each time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pneumoserve.alerts import metrics
from pneumoserve.alerts.advice import SUBJECT_OPERATOR, Text, write_alert, write_retraction
from pneumoserve.alerts.channels import Outgoing, describe, send
from pneumoserve.alerts.errors import ChannelError
from pneumoserve.alerts.links import Links
from pneumoserve.alerts.names import erase_names, find_addressee
from pneumoserve.alerts.policy import AlertPolicy, Channel, Email
from pneumoserve.decision import Reason
from pneumoserve.errors import PneumoserveError
from pneumoserve.ids import time_text, uuid7
from pneumoserve.ledger import Reader
from pneumoserve.records import Addressee, Severity
from pneumoserve.review import AlertDesk, Message, ReviewDatabase, ReviewError, measure_alerts
from pneumoserve.store import Store

# Longer than a step's channels take, so that nobody sends meanwhile what is on its way.
LEASE: Final = timedelta(seconds=60)
_WORKERS: Final = 8
# A short fault of a channel mends itself: whoever runs the service hears of the third try, and not of each.
_TRIES_UNTOLD: Final = 2
_OPERATOR_PAUSE: Final = timedelta(minutes=15)
_MEASURE_PAUSE: Final = timedelta(minutes=1)
_ERASE_PAUSE: Final = timedelta(hours=1)
_MEASURED: Final = timedelta(days=30)
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What a sender works on; without `opening`, nobody's name is shown."""

    store: Store
    reader: Reader
    database: ReviewDatabase
    desk: AlertDesk
    policy: AlertPolicy
    links: Links
    opening: X25519PrivateKey | None = None


class Sender:
    """Sends the alerts of one archive, by one policy."""

    def __init__(
        self, resources: Resources, lease: timedelta = LEASE, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._with = resources
        self._lease = lease
        self._now = now
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="send")
        self._running: set[Future[None]] = set()
        # What a channel took and the archive did not: it is not sent again, only recorded.
        self._taken: dict[str, str] = {}
        self._told_operator: datetime | None = None
        self._telling = threading.Lock()
        self._next_measure = self._next_erase = now()

    def run(self, wait: Callable[[], object]) -> None:
        """Look again and again until `stop`; `wait` comes back when it is time for the next look."""
        if not self._with.policy.routes:
            _log.warning("the alert policy has no routes: alerts are listed, and sent to nobody")
        while not self._stop.is_set():
            try:
                self.look()
            except PneumoserveError as error:
                # Nothing is lost: the next look goes on where this one stopped.
                _log.error("alerts wait: %s", error)
            wait()
        self._pool.shutdown()

    def stop(self) -> None:
        """Begin nothing new; what is on its way is finished."""
        self._stop.set()

    def look(self) -> None:
        """Take what is new, raise alerts, escalate, and have what waits sent by the threads of this sender.

        Raises:
            StoreError, DatabaseError: the archive or the database does not answer.
        """
        given, now = self._with, self._now()
        try:
            given.database.follow(given.reader)
        except ValueError:
            # What is known by now is sent all the same.
            _log.error("the archive holds an entry that this version does not read; use the version that wrote it")
        metrics.LAST_LOOK.set(now.timestamp())
        since = now - timedelta(days=given.policy.since_days)
        while raised := given.desk.raise_alerts(since, given.policy.also_alert):
            for alert in raised:
                metrics.RAISED.labels(alert.severity).inc()
        while retracted := given.desk.retract_withdrawn():
            _log.info("%d alerts were retracted", retracted)
        if given.policy.routes:
            self._escalate(now)
            self._begin_sending()
        if now >= self._next_measure:
            self._next_measure = now + _MEASURE_PAUSE
            self._measure(now)
        if now >= self._next_erase:
            self._next_erase = now + _ERASE_PAUSE
            self._finish(now)

    def _finish(self, now: datetime) -> None:
        """Erase the names of studies that are over, and close their alerts; names first, for closing is news too."""
        given = self._with
        before = now - timedelta(days=given.policy.erase_names_days)
        latest = now - timedelta(days=given.policy.keep_names_days)
        metrics.ERASED.inc(erase_names(given.store, given.database, before, latest))
        while closed := given.desk.close_finished(before):
            metrics.CLOSED.inc(closed)

    def wait_for_deliveries(self) -> None:
        """Return once no thread of this sender sends anything."""
        for each in list(self._running):
            each.result()

    def _escalate(self, now: datetime) -> None:
        for alert in self._with.desk.list_open(unanswered=True):
            severity: Severity = "urgent" if alert.severity == "urgent" else "listed"
            route = self._with.policy.route(alert.caller, severity, now)
            following = alert.escalations + 1
            if route is None or following >= len(route.steps):
                continue
            pause = timedelta(minutes=route.steps[following].after_minutes)
            if now >= datetime.fromisoformat(alert.time) + pause:
                try:
                    self._with.desk.escalate(alert.alert_id, following)
                except ReviewError as error:
                    # Somebody answered, or another sender was first.
                    _log.info("an escalation was not needed: %s", error)
                else:
                    metrics.ESCALATIONS.inc()

    def _begin_sending(self) -> None:
        self._running = {each for each in self._running if not each.done()}
        free = _WORKERS - len(self._running)
        if free:
            for message in self._with.desk.take_from_outbox(self._lease, free):
                self._running.add(self._pool.submit(self._send_on, message))

    def _send_on(self, message: Message) -> None:
        """Send a message, and then what waits behind it."""
        taken = [message]
        try:
            while taken:
                self._deliver(taken[0])
                taken = [] if self._stop.is_set() else self._with.desk.take_from_outbox(self._lease, 1)
        except PneumoserveError as error:
            _log.error("alerts wait: %s", error)
        except Exception as error:  # noqa: BLE001 - its text may hold what was sent
            _log.error("unexpected %s while an alert was sent; it is tried again", type(error).__name__)

    def _deliver(self, message: Message) -> None:
        policy, desk = self._with.policy, self._with.desk
        severity: Severity = "urgent" if message.urgent else "listed"
        route = policy.route(message.caller, severity, self._now())
        if route is None:
            raise AssertionError("messages are taken where there are routes, and the last one takes all")
        # Whoever was told of an alert is told that it holds no more.
        steps = range(message.step) if message.retracted else (message.step,)
        names = tuple(dict.fromkeys(name for step in steps for name in route.step(step).channels))
        took = self._taken.get(message.key)
        if took is None:
            channels = {name: policy.channels[name] for name in names}
            faults = self._try_all(channels, self._write(message, severity, self._addressee(message, channels)))
            took = next((name for name in names if name not in faults), None)
            if took is None:
                self._note_undelivered(message)
                # Each names one channel: the last is as good as any.
                desk.record_failed(message, names[-1], faults[names[-1]])
                return
            self._taken[message.key] = took
            if message.step == 0:
                metrics.SECONDS.observe((self._now() - datetime.fromisoformat(message.answer_time)).total_seconds())
        desk.record_sent(message, took)
        self._taken.pop(message.key, None)

    def _addressee(self, message: Message, channels: Mapping[str, Channel]) -> Addressee:
        """Whose X-ray it is, where a channel may say so or is chosen by it."""
        if not any(each.shows or (isinstance(each, Email) and each.practitioners) for each in channels.values()):
            return Addressee()
        prediction_ids = self._with.desk.list_predictions(message.case_id)
        return find_addressee(self._with.store, self._with.opening, prediction_ids)

    def _write(self, message: Message, severity: Severity, addressee: Addressee) -> Outgoing:
        given = self._with
        link = None
        if given.policy.link is not None:
            link = given.policy.link + given.links.make(message.alert_id, self._now())
        return Outgoing(
            key=message.key,
            time=message.time,
            event="alert.retracted" if message.retracted else "alert.escalated" if message.step else "alert.raised",
            text=write_retraction(message.case_id)
            if message.retracted
            else write_alert(message.case_id, message.step, message.reasons, link),
            facts=describe(message.case_id, severity, message.reasons, link),
            addressee=addressee,
        )

    def _try_all(self, channels: Mapping[str, Channel], outgoing: Outgoing) -> dict[str, str]:
        """Have all channels take a message; why those did not that did not."""
        faults = {}
        for name, channel in channels.items():
            try:
                send(channel, outgoing)
            except ChannelError as error:
                faults[name] = str(error)
                _log.warning("channel %s did not take message %s: %s", name, outgoing.key, error)
            metrics.DELIVERIES.labels(name, "failed" if name in faults else "taken").inc()
        return faults

    def _note_undelivered(self, message: Message) -> None:
        """Tell whoever runs the service, now and then, that alerts reach nobody."""
        metrics.UNDELIVERED.inc()
        _log.error("message %s reached nobody, at try %d", message.key, message.attempts + 1)
        if message.attempts >= _TRIES_UNTOLD:
            with self._telling:
                self._tell_operator(self._now())

    def _tell_operator(self, now: datetime) -> None:
        if self._told_operator is not None and now < self._told_operator + _OPERATOR_PAUSE:
            return
        text = Text(SUBJECT_OPERATOR, ("No channel took an alert. See the sender's log, and mend the channel.",))
        outgoing = Outgoing(f"operator-{uuid7()}", time_text(now), "operator.undelivered", text)
        channels = {name: self._with.policy.channels[name] for name in self._with.policy.operator}
        if len(self._try_all(channels, outgoing)) < len(channels):
            self._told_operator = now

    def _measure(self, now: datetime) -> None:
        figures = measure_alerts(self._with.database, now - _MEASURED)
        metrics.WAITING.set(figures.waiting)
        # Without routes all of them wait, for ever, and are not late.
        metrics.OLDEST_WAITING.set(_unix_seconds(figures.oldest_message if self._with.policy.routes else None))
        metrics.UNANSWERED.set(figures.unanswered)
        metrics.OLDEST_UNANSWERED.set(_unix_seconds(figures.oldest_unanswered))
        metrics.SEALED.set(_unix_seconds(self._with.reader.find_last_sealing()))
        metrics.PER_100_IMAGES.set(figures.per_100_images or 0.0)
        for reason in get_args(Reason):
            metrics.LISTED.labels(reason).set(figures.listed.get(reason, 0))


def _unix_seconds(moment: str | None) -> float:
    return 0.0 if moment is None else datetime.fromisoformat(moment).timestamp()
