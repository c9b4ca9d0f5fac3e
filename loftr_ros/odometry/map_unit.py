"""The unit of length of the map of one camera, from speeds that were measured otherwise, for example by wheels.

A single camera sees how far it moves only in a unit that its first two keyframes define, and that drifts afterwards.
The distance that the measured speed gives for the same time tells how many metres the unit is.
"""

from __future__ import annotations

import bisect
import collections
from typing import NamedTuple

import numpy as np

from loftr_ros.odometry.stamps import JUMP_NS
from loftr_ros.transforms import UncertainTransform

MAX_GAP_S = 0.5
"""Speeds farther apart are not interpolated: the robot may have done anything between them."""
KEPT_S = 20.0
"""Speeds are kept for this time before the newest one."""

LEAST_STEP_M = 0.005
"""A shorter way between two frames says nothing: the camera stands still but for its noise."""
LEAST_STEPS = 8
"""Steps of one map that agree, before its unit is known ..."""
LEAST_SHARE = 2 / 3
"""... which also have to be this share of all ..."""
ENOUGH_STEPS = 25
"""Steps of a map after which its unit should be known."""
MAX_SCATTER = 0.1
"""... and whose ratio may scatter by this, relative: otherwise camera and speed do not see the same motion."""
STEPS = 40
"""The unit is the one of the last steps, because it drifts: about 3 m of a robot in a room, 40 m of a car."""
OUTLIER_SIGMAS = 3.0


class SpeedLog:
    """Speeds of the camera [m/s] by their stamps [ns]."""

    def __init__(self):
        self._stamps_ns: list[int] = []
        self._speeds: list[float] = []

    def add(self, stamp_ns: int, speed: float) -> None:
        """Add a measured speed; of two with one stamp the last one is used. A jump back in time forgets the others."""
        if self._stamps_ns and stamp_ns < self._stamps_ns[-1] - JUMP_NS:
            self._stamps_ns.clear()
            self._speeds.clear()
        place = bisect.bisect_left(self._stamps_ns, stamp_ns)
        if place < len(self._stamps_ns) and self._stamps_ns[place] == stamp_ns:
            self._speeds[place] = abs(speed)
            return
        self._stamps_ns.insert(place, stamp_ns)
        self._speeds.insert(place, abs(speed))
        old = bisect.bisect_left(self._stamps_ns, self._stamps_ns[-1] - round(KEPT_S * 1e9))
        del self._stamps_ns[:old], self._speeds[:old]

    @property
    def newest_ns(self) -> int:
        """The stamp of the newest speed; 0 without one."""
        return self._stamps_ns[-1] if self._stamps_ns else 0

    def reach(self, stamp_ns: int) -> bool:
        """Return whether a speed of this time or a later one is known."""
        return bool(self._stamps_ns) and self._stamps_ns[-1] >= stamp_ns

    def distance_m(self, start_ns: int, end_ns: int) -> float:
        """Return the way between two times [m], NaN where the speeds do not cover it."""
        first = bisect.bisect_right(self._stamps_ns, start_ns) - 1
        last = bisect.bisect_left(self._stamps_ns, end_ns)
        if first < 0 or last >= len(self._stamps_ns):
            return np.nan
        stamps_ns = np.array(self._stamps_ns[first : last + 1])
        if np.max(np.diff(stamps_ns), initial=0) > MAX_GAP_S * 1e9:
            return np.nan
        inside = stamps_ns[(stamps_ns > start_ns) & (stamps_ns < end_ns)]
        ends_ns = np.concatenate([[start_ns], inside, [end_ns]])
        # Times from the start: float64 has no nanoseconds of a whole epoch.
        speeds = np.interp(ends_ns - start_ns, stamps_ns - start_ns, self._speeds[first : last + 1])
        return float(np.sum(np.diff(ends_ns) / 1e9 * (speeds[1:] + speeds[:-1]) / 2))


class _Step(NamedTuple):
    start_ns: int
    end_ns: int
    length: float  # in the unit of the map


class MapUnit:
    """How many metres the unit of a map is; the keyframes of one map share it.

    Args:
        speed_noise: relative standard deviation that all speeds share, for example of the wheels' radius.
        start: pose of the keyframe at which the map started.

    Attributes:
        metres: of one unit; None while it is unknown.
        relative_sigma: standard deviation of `metres`, relative.
        scatter: standard deviation of the ratio from step to step, relative: the frames of one keyframe share it.
    """

    def __init__(self, speeds: SpeedLog, speed_noise: float, start: UncertainTransform):
        self._speeds = speeds
        self._start = start
        self._speed_noise = speed_noise
        self._waiting: collections.deque[_Step] = collections.deque(maxlen=STEPS)
        self._ratios: collections.deque[tuple[float, float]] = collections.deque(maxlen=STEPS)  # [m], in the unit
        self._uncovered = self._still = 0  # steps without a use
        self.metres: float | None = None
        self.relative_sigma = np.inf
        self.scatter = 0.0

    def add_step(self, start_ns: int, end_ns: int, length: float) -> None:
        """Add the way between two frames, in the unit of the map; it waits for the speeds up to its end."""
        self._last_ns = end_ns
        self._waiting.append(_Step(start_ns, end_ns, length))
        while self._waiting and self._speeds.reach(self._waiting[0].end_ns):
            step = self._waiting.popleft()
            distance_m = self._speeds.distance_m(step.start_ns, step.end_ns)
            if step.length <= 0:
                continue
            if distance_m >= LEAST_STEP_M:
                self._ratios.append((distance_m, step.length))
            elif np.isnan(distance_m):
                self._uncovered += 1
            else:
                self._still += 1
        self._estimate()

    def _estimate(self) -> None:
        """Take the ratio of the sums, so that long steps count more, of the steps that agree with the median."""
        if len(self._ratios) < LEAST_STEPS:
            return
        distance_m, length = np.array(self._ratios).T
        ratio = np.log(distance_m / length)
        spread = 1.4826 * np.median(np.abs(ratio - np.median(ratio)))
        used = np.abs(ratio - np.median(ratio)) <= OUTLIER_SIGMAS * max(spread, self._speed_noise)
        count = np.count_nonzero(used)
        if count >= max(LEAST_STEPS, LEAST_SHARE * len(used)) and spread <= MAX_SCATTER:
            self.metres = float(distance_m[used].sum() / length[used].sum())
            self.relative_sigma = float(np.hypot(spread / np.sqrt(count), self._speed_noise))
            self.scatter = float(spread)
        elif self.metres is not None:  # camera and speed no longer agree: the last unit is used, and not trusted more
            self.relative_sigma, self.scatter = (max(old, spread) for old in (self.relative_sigma, self.scatter))

    @property
    def fault(self) -> str:
        """Why the unit is still unknown after ENOUGH_STEPS; empty if it is known, or that early."""
        uncovered = self._uncovered + len(self._waiting)
        steps = uncovered + self._still + len(self._ratios)
        if self.metres is not None or steps < ENOUGH_STEPS:
            return ''
        if uncovered > steps / 2:
            late_s = (self._last_ns - self._speeds.newest_ns) / 1e9
            side = 'before' if late_s > 0 else 'after'
            return (
                f'the speeds do not cover the times of the images: the newest is {abs(late_s):.3g} s {side} the newest '
                'image, by their stamps; stamp both by one clock'
            )
        if self._still > steps / 2:
            return 'the speeds are 0 while the camera moves'
        distance_m, length = np.array(self._ratios).T
        scatter = np.std(np.log(distance_m / length))
        return f'camera and speed differ by {scatter:.0%} from step to step, needed is {MAX_SCATTER:.0%}'

    def in_metres(self, transform: UncertainTransform) -> UncertainTransform:
        """Return a transform between frames of the map, whose length has its own error. Unchanged while unknown."""
        if self.metres is None:
            return transform
        return transform.scaled(self.metres).with_relative_error(self.scatter)

    def bring_to_metres(self, origin_from_keyframe: UncertainTransform) -> UncertainTransform:
        """Return the pose of a keyframe of the map as if its unit had been known from its start on."""
        start = self._start.matrix
        moved = UncertainTransform(np.linalg.inv(start) @ origin_from_keyframe.matrix, origin_from_keyframe.covariance)
        moved = self.in_metres(moved)
        # The start may be uncertain itself, and not by this unit: both are added.
        return UncertainTransform(start @ moved.matrix, moved.covariance + self._start.covariance)
