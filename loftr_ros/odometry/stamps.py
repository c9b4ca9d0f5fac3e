"""The order of stamps: which frames are late, and when time starts again (a bag that loops, a simulation reset)."""

from __future__ import annotations

from loftr_ros.errors import InputError

JUMP_NS = 500_000_000
"""Time jumped back if two messages of a topic in a row are older than its newest stamp by more than this [ns].

A single such message is late, and so is every message that is older by less.
"""


class JumpWatch:
    """Detects that the stamps of one of several topics jump back."""

    def __init__(self, topic_count: int = 1):
        self._newest_ns: list[int | None] = [None] * topic_count
        self._old_in_a_row = [0] * topic_count

    def went_back(self, stamp_ns: int, topic: int = 0) -> bool:
        """Record a message; return True if it is the second old one in a row of its topic."""
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


class StampPolicy:
    """Accepts frames in the order of their stamps, and detects that time starts again."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Forget all stamps: the next frame is accepted with any stamp."""
        self._last_ns: int | None = None
        self._jumps = JumpWatch()

    def accept(self, stamp_ns: int) -> str:
        """Check the stamp of the next frame; return the reason if the motion must start again, or an empty text.

        Raises:
            InputError: the frame is late or repeated and must be dropped.
        """
        last_ns = self._last_ns
        went_back = self._jumps.went_back(stamp_ns)
        if not went_back and last_ns is not None and stamp_ns <= last_ns:
            raise InputError(
                f'its stamp {stamp_ns} is not newer than {last_ns}, the last one processed; send frames in the order '
                'of their stamps, each with a different stamp'
            )
        self._last_ns = stamp_ns
        return f'stamps went back by {(last_ns - stamp_ns) / 1e9:.3f} s' if went_back else ''
