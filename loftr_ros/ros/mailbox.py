"""A mailbox of limited size between the callbacks of a node and its worker thread."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

BACKLOG_LIMIT = 500
"""Pairs that can wait with `process_every_frame`; 500 grey VGA stereo pairs take 300 MB."""


class Mailbox:
    """Passes items and functions from callbacks to a worker. With a capacity of 1 it contains only the newest item.

    Functions are what the worker must do between two items; they are never dropped before `close`.
    """

    def __init__(self):
        self._items = collections.deque()
        self._functions: collections.deque[Callable[[], None]] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item, capacity: int = 1) -> int:
        """Add `item`, drop the oldest items over `capacity` and return their number. Once closed, `item` is dropped."""
        with self._changed:
            if self._closed:
                return 1
            self._items.append(item)
            superseded = max(0, len(self._items) - capacity)
            for _ in range(superseded):
                self._items.popleft()
            self._changed.notify()
            return superseded

    def call(self, function: Callable[[], None]) -> None:
        """Let the worker call `function` before the next item."""
        with self._changed:
            self._functions.append(function)
            self._changed.notify()

    def clear(self) -> int:
        """Drop all items and return their number."""
        with self._changed:
            dropped = len(self._items)
            self._items.clear()
            return dropped

    def close(self) -> None:
        """Drop everything and let the worker end: `get` returns None from now on."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._functions.clear()
            self._changed.notify_all()

    def get(self):
        """Wait, and return the oldest function, without one the oldest item, or None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._functions or self._items or self._closed)
            waiting = self._functions or self._items
            return waiting.popleft() if waiting else None

    def __len__(self) -> int:
        return len(self._items)
