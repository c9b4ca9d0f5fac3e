"""Two tests of whether matches support a motion better than wrong matches would: a-contrario, and order of neighbours.

Wrong matches of a learned matcher are neither uniform nor independent: whole patches are matched with patches that look
similar. Therefore the matches of one patch count once, the probability of chance agreement is measured on the matches
themselves, and the number of models that the search compared is taken into account (Moisan and Stival, IJCV 2004;
Moulon, Monasse and Marlet, ACCV 2012). The second test checks that neighbours in image 0 keep their order in image 1:
they do on every visible surface, but not in a mirror image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from loftr_ros.pose.models import Points

CHANCE_DRAWS = 4000
"""Number of random pairs of a point of image 0 and one of image 1, which measure chance agreement."""

NEIGHBOURS = 4
MIN_SINE = 0.35
"""A point and two neighbours span a triangle if the angle between the neighbours is at least 20 degrees."""

ORDERED, ORDERED_BY_CHANCE = 0.97, 0.65
"""Share of triangles of neighbours that keep their orientation, in related images and for wrong matches. Measured."""

SMOOTH = 0.15
"""Neighbours are on one smooth surface if an affine map leaves less than this share of their distance."""

MIN_ORDERED = 0.55
"""Points at random depths have about 0.6 to 0.8."""

MIN_ORDERED_ON_SURFACES = 0.68
MIN_ORDERED_ON_SMOOTH_SURFACES = 0.78
MIN_SMOOTH_SHARE = 0.3
"""Matches of images are on surfaces, whose neighbours keep their order: related images have 0.79 and more, mirror
images up to 0.66, or up to 0.77 if the scene is symmetric; then at least MIN_SMOOTH_SHARE of the places is smooth."""

MIN_PLACES = 8


class Order(NamedTuple):
    """Arrangement of neighbouring inliers in both images; every pair of patches is one place.

    Args:
        places: number of places.
        share: of the triangles of neighbours, those with the same orientation in both images.
        smooth_share: of the places, those where an affine map transforms the neighbours from one image to the other.
        on_surfaces: whether the points come from images.
    """

    places: int
    share: float
    smooth_share: float
    on_surfaces: bool

    @property
    def is_impossible(self) -> bool:
        """Whether surfaces are seen from behind or mixed up, as in a mirror image. No motion of a camera does this."""
        least = MIN_ORDERED
        if self.on_surfaces:
            is_smooth = self.smooth_share >= MIN_SMOOTH_SHARE
            least = MIN_ORDERED_ON_SMOOTH_SURFACES if is_smooth else MIN_ORDERED_ON_SURFACES
        return self.places >= MIN_PLACES and self.share < least

    @property
    def log10_ratio(self) -> float:
        """log10 of the likelihood of this order for wrong matches relative to that for related images."""
        kept = math.log10(ORDERED / ORDERED_BY_CHANCE)
        lost = math.log10((1 - ORDERED) / (1 - ORDERED_BY_CHANCE))
        return -self.places * (self.share * kept + (1 - self.share) * lost)


def log10_false_alarms(inliers: np.ndarray, points: Points, freedom: int, agrees, order: Order) -> float:
    """Return log10 of the expected number of motions that wrong matches alone would support as well as this one.

    It is the number of models that the search compared, times the probability that so many pairs of patches agree with
    one by chance, times the likelihood ratio of the order of neighbours, times the dependence of wrong matches.

    Args:
        inliers: (n,) bool.
        freedom: number of matches that determine the motion: 5 for an essential matrix, 2 for a rotation.
        agrees: function from Points to (n,) bool, whether a match agrees with the motion.
    """
    total, agreeing = support(inliers, points)
    if agreeing <= freedom:
        return points.log10_dependence
    chance = (np.count_nonzero(agrees(_random_pairings(points))) + 1) / CHANCE_DRAWS
    models = math.log10(max(total - freedom, 1)) + _log10_choose(total, agreeing) + _log10_choose(agreeing, freedom)
    agreement = models + (agreeing - freedom) * math.log10(min(chance, 1.0))
    return agreement + order.log10_ratio + points.log10_dependence


def support(inliers: np.ndarray, points: Points) -> tuple[int, int]:
    """Return the number of pairs of patches, and of those of which at least half of the matches are inliers."""
    count = np.bincount(points.patches)
    agreeing = np.bincount(points.patches, inliers, minlength=len(count))
    return len(count), int(np.count_nonzero(2 * agreeing >= np.maximum(count, 1)))


def _random_pairings(points: Points) -> Points:
    """Return points of image 0 paired with points of image 1 of other matches: wrong matches of equal distribution."""
    random = np.random.default_rng(0)
    first = random.integers(len(points), size=CHANCE_DRAWS)
    second = (first + random.integers(1, len(points), size=CHANCE_DRAWS)) % len(points)
    return points.paired(first, second)


def _log10_choose(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(10)


def neighbour_order(inliers: np.ndarray, points: Points) -> Order:
    """Return the arrangement of neighbouring inliers; `inliers` (n,) bool."""
    number = np.unique(points.patches[inliers], return_inverse=True)[1].ravel()
    count = np.bincount(number)
    if len(count) <= NEIGHBOURS:
        return Order(0, 0.0, 0.0, points.on_surfaces)
    place0, place1 = (
        np.column_stack([np.bincount(number, rays[axis, inliers]) / count for axis in (0, 1)])
        for rays in (points.rays0, points.rays1)
    )
    nearest = _nearest(place0)
    steps0, steps1 = place0[nearest] - place0[:, None], place1[nearest] - place1[:, None]  # (places, neighbours, 2)
    first, second = np.triu_indices(NEIGHBOURS, 1)
    area0, area1 = (_cross(steps[:, first], steps[:, second]) for steps in (steps0, steps1))
    length = np.linalg.norm(steps0, axis=2)
    spans = np.abs(area0) > MIN_SINE * length[:, first] * length[:, second]
    share = float(np.mean((area0 * area1 > 0)[spans])) if spans.any() else 0.0
    return Order(len(count), share, _count_smooth(steps0, steps1) / len(count), points.on_surfaces)


def _nearest(points: np.ndarray) -> np.ndarray:
    """Return (n, NEIGHBOURS) ascending indices of the nearest other points (n, 2)."""
    x, y = points.T
    square = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    np.fill_diagonal(square, np.inf)
    row, nearest = np.arange(len(points)), np.empty((len(points), NEIGHBOURS), int)
    for column in nearest.T:  # four searches for the smallest take a quarter of the time of a partition
        column[:] = square.argmin(axis=1)
        square[row, column] = np.inf
    return np.sort(nearest, axis=1)


def _count_smooth(steps0: np.ndarray, steps1: np.ndarray) -> int:
    """Return at how many places an affine map moves the neighbours; steps (places, neighbours, 2) to them."""
    normal = steps0.transpose(0, 2, 1) @ steps0
    size = np.trace(normal, axis1=1, axis2=2)
    usable = np.linalg.det(normal) > (MIN_SINE * size / 2) ** 2 / 2  # the neighbours are not on one line
    steps0, steps1 = steps0[usable], steps1[usable]
    affine = np.linalg.solve(normal[usable], steps0.transpose(0, 2, 1) @ steps1)
    misfit = np.sum((steps0 @ affine - steps1) ** 2, axis=(1, 2))
    return int(np.sum(misfit < SMOOTH**2 * np.sum(steps1**2, axis=(1, 2))))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
