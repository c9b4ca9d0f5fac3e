"""When time begins again: a bag that loops, a simulation that is reset."""

from __future__ import annotations

from collections.abc import Sequence

JUMP_NS = 500_000_000
"""Two messages of a topic in a row whose stamps are older than its newest by more than this [ns]: time jumped back.

One alone is a late message, as are any that are older by less.
"""


class JumpWatch:
    """Notices when the stamps of a topic jump back, and which waiting messages that makes stale."""

    def __init__(self, topic_count: int):
        self._newest_ns: list[int | None] = [None] * topic_count
        self._old_in_a_row = [0] * topic_count

    def went_back(self, topic: int, stamp_ns: int) -> bool:
        """Note a message; True when it is the second with which its topic begins again."""
        newest_ns = self._newest_ns[topic]
        if newest_ns is None or stamp_ns >= newest_ns - JUMP_NS:
            self._old_in_a_row[topic] = 0
            self._newest_ns[topic] = stamp_ns if newest_ns is None else max(newest_ns, stamp_ns)
            return False
        self._old_in_a_row[topic] += 1
        if self._old_in_a_row[topic] == 1:
            return False
        # The other topics will follow: their messages must not count as further jumps.
        self._newest_ns = [None if n is None or n > stamp_ns + JUMP_NS else n for n in self._newest_ns]
        self._old_in_a_row = [0] * len(self._old_in_a_row)
        self._newest_ns[topic] = stamp_ns
        return True

    @staticmethod
    def drop_future(queues: Sequence[dict], stamp_ns: int) -> None:
        """Remove the messages from before the jump; those of topics that jumped first, a little ahead, stay."""
        for waiting in queues:
            for stale_ns in [key for key in waiting if key > stamp_ns + JUMP_NS]:
                del waiting[stale_ns]
