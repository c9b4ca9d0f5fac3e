"""The sets of image pairs with ground truth for accuracy.py, and the measurements for each kind of set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
from plain_rooms import plain_room_pairs

from loftr_ros.camera import Camera
from loftr_ros.config import Config
from loftr_ros.datasets import open_sequence
from loftr_ros.datatypes import Matches
from loftr_ros.evaluation.metrics import (
    corner_error_px,
    count_correct,
    disparity_errors_px,
    error_auc,
    mean_matching_accuracy,
    transfer_errors_px,
)
from loftr_ros.evaluation.relative_pose import pairs as pairs_of
from loftr_ros.evaluation.relative_pose import score_pair, summarise
from loftr_ros.image_files import list_images, read_colour

CORRECT_TRANSFER_PX = 3.0
CORRECT_DISPARITY_PX = 1.0
HOMOGRAPHY_RANSAC_PX = 3.0
SOLVED_DEG = 5.0

OXFORD_SCENES = {'graf': 'viewpoint', 'boat': 'zoom and turn', 'leuven': 'light', 'wall': 'viewpoint'}
OXFORD_OTHERS = range(2, 7)
KITTI_STEPS = (1, 3, 6)
PLAIN_PAIRS = 20


class Pair(NamedTuple):
    """Two images with ground truth: cam1_from_cam0 with a camera, a homography, or a disparity."""

    name: str
    image0: np.ndarray
    image1: np.ndarray
    truth: np.ndarray
    camera: Camera | None = None


@dataclasses.dataclass(frozen=True)
class PairSet:
    """Pairs of one kind, made or loaded one by one. `measure` returns a row of numbers for one pair and matcher.

    Subclasses define the numbers: `heading`, `columns` and `cells` for the results file, `headline` and `summary`
    for the table of the README.
    """

    title: str
    count: int
    pairs: Callable[[], Iterator[Pair]]

    heading: ClassVar[str]
    headline: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    def measure(self, pair: Pair, matches: Matches) -> tuple:
        raise NotImplementedError

    def cells(self, rows: list[tuple]) -> list:
        raise NotImplementedError

    def summary(self, rows: list[tuple]) -> str:
        raise NotImplementedError


class PoseSet(PairSet):
    """Relative pose by loftr_ros.pose compared with the true one.

    A row is a PairScore.
    """

    heading = 'Relative pose by loftr_ros.pose'
    headline = 'pose AUC@5/10/20°; correct matches'
    columns = (
        'pose AUC@5/10/20',
        'rotation p50 [deg]',
        'direction p50 [deg]',
        'inliers p50',
        'correct p50',
        'matches p50',
        'failures',
    )

    def measure(self, pair: Pair, matches: Matches) -> tuple:
        return score_pair(matches, pair.camera, pair.camera, pair.truth, Config().pose)

    def cells(self, rows: list[tuple]) -> list:
        found = summarise(rows)
        counts = (round(count) for count in (found.num_inliers, found.num_correct, found.num_matches))
        return [_slashed(found.auc), found.rotation_deg, found.direction_deg, *counts, found.num_failures]

    def summary(self, rows: list[tuple]) -> str:
        found = summarise(rows)
        return f'{_slashed(found.auc)}; {found.num_correct:.0f}'


class PlainRoomSet(PoseSet):
    """Pairs with little texture: the number of solved pairs is more informative than an area under a curve."""

    heading = 'Plain rooms, relative pose'
    headline = f'solved within {SOLVED_DEG:.0f}°; correct matches'
    columns = (f'solved within {SOLVED_DEG:.0f} deg', *PoseSet.columns)

    def cells(self, rows: list[tuple]) -> list:
        return [self._solved(rows), *super().cells(rows)]

    def summary(self, rows: list[tuple]) -> str:
        return f'{self._solved(rows)}; {np.median([row[4] for row in rows]):.0f}'

    @staticmethod
    def _solved(rows: list[tuple]) -> str:
        return f'{count_correct([row[2] for row in rows], SOLVED_DEG)} of {len(rows)}'


class HomographySet(PairSet):
    """Matches, and their homography by RANSAC, compared with the true one.

    A row: MMA@1, 3, 5 px; corner error [px], infinite without an estimate; correct matches; matches.
    """

    heading = 'Planar scenes'
    headline = 'MMA@1/3/5 px; correct matches'
    columns = ('MMA@1/3/5 px', 'homography AUC@3/5/10 px', 'correct p50', 'matches p50')

    def measure(self, pair: Pair, matches: Matches) -> tuple:
        errors = transfer_errors_px(pair.truth, matches.keypoints0, matches.keypoints1)
        estimate = None
        if len(matches) >= 4:
            estimate, _ = cv2.findHomography(
                matches.keypoints0, matches.keypoints1, cv2.USAC_MAGSAC, HOMOGRAPHY_RANSAC_PX, confidence=0.9999
            )
        height, width = pair.image0.shape[:2]
        corner = corner_error_px(estimate, pair.truth, width, height)
        accuracy = mean_matching_accuracy(errors, (1, 3, 5))
        return *accuracy, corner, count_correct(errors, CORRECT_TRANSFER_PX), len(matches)

    def cells(self, rows: list[tuple]) -> list:
        *accuracy, corner, correct, matches = np.array(rows, np.float64).T
        counts = [round(float(np.median(count))) for count in (correct, matches)]
        return [_slashed(np.mean(accuracy, axis=1)), _slashed(error_auc(corner, (3, 5, 10))), *counts]

    def summary(self, rows: list[tuple]) -> str:
        *accuracy, _, correct, _ = np.array(rows, np.float64).T
        return f'{_slashed(np.mean(accuracy, axis=1))}; {np.median(correct):.0f}'

    @staticmethod
    def pair_cell(row: tuple) -> str:
        """Return the cell of a pair for the table of single pairs."""
        *accuracy, corner, correct, matches = row
        return f'{_slashed(accuracy)}; {corner:.3g} px; {correct} of {matches}'


class DisparitySet(PairSet):
    """Matches of a rectified pair compared with the true disparity.

    A row: share within 1 px, of the places with a known disparity; correct matches; matches.
    """

    heading = 'Rectified stereo'
    headline = f'within {CORRECT_DISPARITY_PX:.0f} px of the disparity; correct matches'
    columns = (f'share within {CORRECT_DISPARITY_PX:.0f} px', 'correct', 'matches')

    def measure(self, pair: Pair, matches: Matches) -> tuple:
        errors = disparity_errors_px(pair.truth, matches.keypoints0, matches.keypoints1)
        known = errors[~np.isnan(errors)]
        share = mean_matching_accuracy(known, (CORRECT_DISPARITY_PX,))[0]
        return float(share), count_correct(known, CORRECT_DISPARITY_PX), len(matches)

    def cells(self, rows: list[tuple]) -> list:
        return list(rows[0])

    def summary(self, rows: list[tuple]) -> str:
        share, correct, _ = rows[0]
        return f'{share:.2f}; {correct}'


def _slashed(values) -> str:
    return ' / '.join(f'{value:.2f}' for value in values)


def _sequence_set(title: str, folder: Path, step: int = 1) -> PoseSet:
    """Return the pairs (i, i + step) for every step-th frame of the (left) camera."""
    sequence = open_sequence(folder)

    def pairs():
        for name, frame0, frame1, truth in pairs_of(sequence, step):
            yield Pair(name, frame0.image, frame1.image, truth, frame0.camera)

    return PoseSet(title, len(range(0, len(sequence) - step, step)), pairs)


def _kitti(data: Path) -> list[PairSet]:
    return [_sequence_set(f'KITTI 06, {step} apart', data / 'kitti06', step) for step in KITTI_STEPS]


def _oxford(data: Path) -> list[PairSet]:
    def pairs(scene: str):
        folder = data / 'oxford_affine' / scene
        images = [read_colour(path) for path in list_images(folder)]
        for other in OXFORD_OTHERS:
            yield Pair(f'{scene} 1-{other}', images[0], images[other - 1], np.loadtxt(folder / f'H1to{other}p'))

    return [
        HomographySet(f'Oxford {scene}, {what}', len(OXFORD_OTHERS), functools.partial(pairs, scene))
        for scene, what in OXFORD_SCENES.items()
    ]


def _motorcycle(data: Path) -> list[PairSet]:
    def pairs():
        folder = data / 'motorcycle_stereo'
        left, right = (read_colour(folder / f'motorcycle_{side}.png') for side in ('left', 'right'))
        yield Pair('motorcycle', left, right, np.load(folder / 'motorcycle_disp.npz')['arr_0'])

    return [DisparitySet('Middlebury Motorcycle, stereo', 1, pairs)]


def _plain_rooms(data: Path) -> list[PairSet]:
    def pairs():
        for name, image0, image1, truth, camera in plain_room_pairs(PLAIN_PAIRS):
            yield Pair(name, image0, image1, truth, camera)

    return [PlainRoomSet('plain rooms, rendered', PLAIN_PAIRS, pairs)]


SETS = {
    'kitti06': _kitti,
    'lund_door': lambda data: [_sequence_set('Lund door, neighbours', data / 'lund_door')],
    'tartanair': lambda data: [_sequence_set('TartanAir, consecutive', data / 'tartanair_stereo_rgbd')],
    'tum': lambda data: [_sequence_set('TUM fr1, consecutive', data / 'tum_fr1_rgbd')],
    'oxford': _oxford,
    'motorcycle': _motorcycle,
    'plain_rooms': _plain_rooms,
}
"""Name -> function from the folder of the data to its sets, one row of the table each."""
