"""Counters of sets of messages and times, and the status on /diagnostics that is made from them."""

from __future__ import annotations

import collections
import threading
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

TIMES = ('match_ms', 'pose_ms', 'odometry_ms', 'age_ms')

BUSY_S = 10.0
"""A pair that takes longer than this gives a warning [s]."""


class Statistics:
    """Thread-safe counters and recent times. Every set counts in `paired`, then in one of the next three counters."""

    COUNTERS = ('paired', 'processed', 'superseded', 'dropped', 'failed_poses', 'time_jumps')

    def __init__(self):
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(self.COUNTERS, 0)
        self.notes: dict[str, str] = {}
        self.last_pair: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self._times = {name: collections.deque(maxlen=200) for name in TIMES}
        self._busy_since_s: float | None = None
        self._reported = dict(self.counts)
        self._received: dict[str, int] = {}
        self._verdict = (DiagnosticStatus.OK, 'Waiting for the first messages.')

    def count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self.counts[name] += number

    def note(self, **values) -> None:
        """Keep the latest value of each name."""
        with self._lock:
            self.notes.update({name: str(value) for name, value in values.items()})

    def note_pair(self, **values) -> None:
        """Keep the values of the last pair and drop all earlier ones, because the matcher may have been changed."""
        with self._lock:
            self.last_pair = {name: str(value) for name, value in values.items()}

    def time(self, **times_ms: float) -> None:
        with self._lock:
            for name, value in times_ms.items():
                self._times[name].append(value)

    def busy(self, is_busy: bool) -> None:
        """Record that a pair is in work from now on, or no longer."""
        with self._lock:
            self._busy_since_s = time.monotonic() if is_busy else None

    def set_error(self, name: str, text: str) -> None:
        """Set the level to ERROR with `text`. If the name ends with a topic, messages on that topic clear the error."""
        with self._lock:
            self.errors[name] = text

    def status(self, name: str, received: dict[str, int], waiting_for: str, warning: str = '') -> DiagnosticStatus:
        """Return the state as a status. Its level depends on what happened after the last call.

        Args:
            received: number of messages by topic.
            waiting_for: why no data arrive; empty while they do.
            warning: another fault while pairs are matched; empty without one.
        """
        with self._lock:
            for error in list(self.errors):
                topic = error.split()[-1]
                if received.get(topic, 0) > self._received.get(topic, 0):
                    del self.errors[error]
            self._verdict = level, message = self._judge(waiting_for, warning)
            self._reported, self._received = dict(self.counts), dict(received)
            pairs = {**self.last_pair, **self.notes, **self.counts}
            pairs.update({f'received {topic}': number for topic, number in received.items()})
            for kind, times in self._times.items():
                if times:
                    p50, p95 = np.percentile(list(times), (50, 95))
                    pairs[f'{kind} p50'], pairs[f'{kind} p95'] = f'{p50:.1f}', f'{p95:.1f}'
        return DiagnosticStatus(
            level=level,
            name=name,
            hardware_id='none',
            message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in pairs.items()],
        )

    def _judge(self, waiting_for: str, warning: str) -> tuple[bytes, str]:
        """Return level and message."""
        since = {name: number - self._reported[name] for name, number in self.counts.items()}
        processed, dropped = since['processed'], since['dropped']
        reason = self.notes.get('last_drop', '')
        if waiting_for:  # before the errors, because it describes the present state of the graph
            return DiagnosticStatus.ERROR, f'No data: {waiting_for}'
        if self.errors:
            return DiagnosticStatus.ERROR, '; '.join(self.errors.values())
        if dropped and not processed:
            return DiagnosticStatus.ERROR, f'Every frame is dropped: {reason}'
        if self._busy_since_s is not None and (busy_s := time.monotonic() - self._busy_since_s) > BUSY_S:
            return DiagnosticStatus.WARN, f'One pair has been in work for {busy_s:.0f} s.'
        if not processed and self._is_dropping:
            return self._verdict  # no set was processed: the state has not changed
        if dropped and dropped >= processed:
            return DiagnosticStatus.WARN, f'{dropped} of {dropped + processed} frames were dropped: {reason}'
        pair_status = self.last_pair.get('status', 'OK')
        if pair_status == 'LOST':
            return DiagnosticStatus.ERROR, 'Lost: the last sets gave no pose; earlier keyframes are tried.'
        if pair_status.startswith('TOO_FEW'):
            return DiagnosticStatus.WARN, 'The last pair gave no pose.'
        if warning:
            return DiagnosticStatus.WARN, warning
        if not self.counts['processed'] and not self.last_pair:
            return DiagnosticStatus.OK, 'Waiting for the first messages.'
        return DiagnosticStatus.OK, 'Matching.'

    @property
    def _is_dropping(self) -> bool:
        """Whether the last verdict was about dropped frames."""
        return 'dropped' in self._verdict[1]


def status_name(node_name: str) -> str:
    """Return the name of the status of a matcher node on /diagnostics; `node_name` is fully qualified, without /."""
    return f'{node_name}: matching'


def array(stamp, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """Return the statuses as one message."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message
