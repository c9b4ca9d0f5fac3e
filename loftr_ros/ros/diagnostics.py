"""Counters of everything that came in, and what /diagnostics says of them."""

from __future__ import annotations

import collections
import threading

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

SILENCE_S = 5.0
"""After so long without a complete set of messages the node explains what it waits for."""


class Statistics:
    """Thread-safe counters and recent times. Every frame ends in exactly one of the counters after `paired`."""

    COUNTERS = ('paired', 'processed', 'superseded', 'dropped', 'failed_poses', 'time_jumps')

    def __init__(self):
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(self.COUNTERS, 0)
        self.notes: dict[str, str] = {}
        self.last_pair: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self._times = {name: collections.deque(maxlen=200) for name in ('match_ms', 'pose_ms', 'age_ms')}

    def count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self.counts[name] += number

    def note(self, **values) -> None:
        """Keep the latest value of each name."""
        with self._lock:
            self.notes.update({name: str(value) for name, value in values.items()})

    def note_pair(self, **values) -> None:
        """Keep what the last pair says, and nothing of the pairs before: a matcher may have been changed since."""
        with self._lock:
            self.last_pair = {name: str(value) for name, value in values.items()}

    def time(self, **times_ms: float) -> None:
        with self._lock:
            for name, value in times_ms.items():
                self._times[name].append(value)

    def set_error(self, name: str, text: str) -> None:
        """Raise the level to ERROR with `text` until cleared with an empty text."""
        with self._lock:
            self.errors[name] = text
            if not text:
                del self.errors[name]

    def status(self, name: str, received: dict[str, int], waiting_for: str) -> DiagnosticStatus:
        """Return the state as a status.

        Args:
            received: number of messages by topic.
            waiting_for: the explanation of silence, empty when data come in.
        """
        with self._lock:
            level, message = DiagnosticStatus.OK, 'Matching.'
            if self.errors:
                level, message = DiagnosticStatus.ERROR, '; '.join(self.errors.values())
            elif waiting_for:
                level, message = DiagnosticStatus.ERROR, f'No data: {waiting_for}'
            elif self.last_pair.get('status', 'OK').startswith('TOO_FEW'):
                level, message = DiagnosticStatus.WARN, 'The last pair gave no pose.'
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


def array(stamp, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """Return the statuses as one message."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message
