"""Comparison of runs on the same source, of odometry or of pairs, with a paired test of their difference."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np

from loftr_ros.datasets.poses import poses_from_tum
from loftr_ros.errors import InputError
from loftr_ros.evaluation.trajectory import relative_errors

BLOCK = 5
"""Number of neighbouring frames that the test swaps together: their errors depend on each other by their keyframe."""

PERMUTATIONS = 9999
WORST_DEG, WORST_PX = 20.0, 10.0
"""Errors of a pose and of the corners under a homography that count as a failure, so that one pair cannot decide."""

EXACT_BLOCKS = 12
"""Up to this number of blocks all swaps are tried, otherwise PERMUTATIONS random ones."""


@dataclasses.dataclass(frozen=True, eq=False)
class SavedRun:
    """What `loftr_ros evaluate -o` wrote about one matcher.

    Args:
        folder: where it is.
        summary: content of summary.json.
        times: `times` of run.json.
        pair_errors: error of each pair by its name, failures with WORST_DEG or WORST_PX; empty for a run of odometry.
        stamps_ns, poses: (N,) and (N, 4, 4), frames with a pose.
        truth_stamps_ns, truth: the same of truth.tum; empty without truth.
    """

    folder: Path
    summary: dict
    times: dict
    pair_errors: dict[str, float]
    stamps_ns: np.ndarray
    poses: np.ndarray
    truth_stamps_ns: np.ndarray
    truth: np.ndarray


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two runs in the error of the motion from frame to frame, or of the pairs, that both have.

    Args:
        count: number of motions or pairs that were compared.
        median_ratio: median error of the second run divided by that of the first.
        p_value: probability of a mean difference at least as large, in either direction, if both were equally good.
    """

    count: int
    median_ratio: float
    p_value: float


def read_run(folder: Path) -> SavedRun:
    """Read a folder of results.

    Raises:
        InputError: it is not such a folder.
    """
    try:
        summary = json.loads((folder / 'summary.json').read_text())
        about = json.loads((folder / 'run.json').read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f'{folder} is not the result of a run ({error}); give the folder of one matcher, such as '
            'results/kitti06/default, which `loftr_ros evaluate SOURCE -o results/kitti06` writes'
        ) from error
    stamps_ns, poses = _poses(folder / 'trajectory.tum')
    truth_stamps_ns, truth = _poses(folder / 'truth.tum')
    errors = _pair_errors(folder / 'pairs.csv')
    return SavedRun(folder, summary, about.get('times', {}), errors, stamps_ns, poses, truth_stamps_ns, truth)


def _pair_errors(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    with file.open(newline='') as stream:
        rows = list(csv.DictReader(stream))
    limits = {'pose_deg': WORST_DEG, 'corner_px': WORST_PX}
    return {
        row['pair']: min(float(row[name]), limit)
        for row in rows
        for name, limit in limits.items()
        if not np.isnan(float(row[name]))
    }


def _poses(file: Path) -> tuple[np.ndarray, np.ndarray]:
    if not file.is_file() or not file.read_text().strip():
        return np.zeros(0, np.int64), np.zeros((0, 4, 4))
    return poses_from_tum(file)


def check_same_source(runs: list[SavedRun]) -> None:
    """Raise InputError if the runs are of two kinds, or do not share pairs or the truth of their common frames."""
    first = runs[0]
    for run in runs[1:]:
        if bool(first.pair_errors) != bool(run.pair_errors):
            raise InputError(f'of {first.folder} and {run.folder} one is a run over pairs and one of odometry')
        if first.pair_errors and not first.pair_errors.keys() & run.pair_errors.keys():
            raise InputError(
                f'{first.folder} and {run.folder} have no pair in common: they are runs on different sources'
            )
        if not len(first.truth) or not len(run.truth):
            continue
        _, rows0, rows1 = np.intersect1d(first.truth_stamps_ns, run.truth_stamps_ns, return_indices=True)
        if not len(rows0) or not np.allclose(first.truth[rows0], run.truth[rows1], atol=1e-6):
            raise InputError(
                f'{first.folder} and {run.folder} have different true poses: they are runs on different sources'
            )


def compare(run0: SavedRun, run1: SavedRun) -> Difference | None:
    """Return the difference of two runs with truth; None if they share fewer than two neighbouring frames, or pairs."""
    if run0.pair_errors:
        errors0, errors1, block = run0.pair_errors, run1.pair_errors, 1
        common = [pair for pair in errors0 if pair in errors1]
    else:
        errors0, errors1, block = _errors_by_stamp(run0), _errors_by_stamp(run1), BLOCK
        common = sorted(errors0.keys() & errors1.keys())
    if len(common) < 2:
        return None
    first, second = (np.array([errors[key] for key in common]) for errors in (errors0, errors1))
    median = np.median(first)
    ratio = float(np.median(second) / median) if median > 0 else float('nan')
    return Difference(len(common), ratio, paired_p_value(second - first, block))


def _errors_by_stamp(run: SavedRun) -> dict[tuple[int, int], float]:
    """Return the error [m] of the motion between each two neighbouring frames with a pose, by their stamps."""
    stamps, rows, true_rows = np.intersect1d(run.stamps_ns, run.truth_stamps_ns, return_indices=True)
    if len(stamps) < 2:
        return {}
    frames = np.arange(len(stamps) - 1)
    scale = run.summary.get('alignment_scale', 1.0)
    errors = relative_errors(run.poses[rows], run.truth[true_rows], frames, frames + 1, scale)
    return dict(zip(zip(stamps[:-1].tolist(), stamps[1:].tolist(), strict=True), errors.translation_m, strict=True))


def paired_p_value(differences: np.ndarray, block: int = BLOCK) -> float:
    """Return the two-sided p-value of a mean of paired differences (N,), by swapping the pairs of whole blocks.

    A permutation test (Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005, 3.2). It is exact for few
    blocks and random with a fixed seed for many, so that the same runs give the same value.
    """
    sums = np.add.reduceat(differences, np.arange(0, len(differences), block))
    observed = abs(sums.sum())
    if len(sums) <= EXACT_BLOCKS:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        extra = 0
    else:
        signs = np.random.default_rng(0).choice([-1, 1], (PERMUTATIONS, len(sums)))
        extra = 1  # the observed one
    reached = np.count_nonzero(np.abs(signs @ sums) >= observed * (1 - 1e-12)) + extra
    return float(reached / (len(signs) + extra))
