"""Comparison of odometry runs on the same source, with a paired test of their difference."""

from __future__ import annotations

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
EXACT_BLOCKS = 12
"""Up to this number of blocks all swaps are tried, otherwise PERMUTATIONS random ones."""


@dataclasses.dataclass(frozen=True, eq=False)
class SavedRun:
    """What `loftr_ros evaluate --odometry -o` wrote about one matcher.

    Args:
        folder: where it is.
        summary: content of summary.json.
        times: `times` of run.json.
        stamps_ns, poses: (N,) and (N, 4, 4), frames with a pose.
        truth_stamps_ns, truth: the same of truth.tum; empty without truth.
    """

    folder: Path
    summary: dict
    times: dict
    stamps_ns: np.ndarray
    poses: np.ndarray
    truth_stamps_ns: np.ndarray
    truth: np.ndarray


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two runs in the error of the motion from frame to frame, over frames that both have.

    Args:
        frames: number of motions that were compared.
        median_ratio: median error of the second run divided by that of the first.
        p_value: probability of a mean difference at least as large, in either direction, if both were equally good.
    """

    frames: int
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
            'results/kitti06/default, which `loftr_ros evaluate SOURCE --odometry RIG -o results/kitti06` writes'
        ) from error
    stamps_ns, poses = _poses(folder / 'trajectory.tum')
    truth_stamps_ns, truth = _poses(folder / 'truth.tum')
    return SavedRun(folder, summary, about.get('times', {}), stamps_ns, poses, truth_stamps_ns, truth)


def _poses(file: Path) -> tuple[np.ndarray, np.ndarray]:
    if not file.is_file() or not file.read_text().strip():
        return np.zeros(0, np.int64), np.zeros((0, 4, 4))
    return poses_from_tum(file)


def check_same_source(runs: list[SavedRun]) -> None:
    """Raise InputError if the runs do not have the same truth at the frames that they share."""
    first = runs[0]
    for run in runs[1:]:
        if not len(first.truth) or not len(run.truth):
            continue
        _, rows0, rows1 = np.intersect1d(first.truth_stamps_ns, run.truth_stamps_ns, return_indices=True)
        if not len(rows0) or not np.allclose(first.truth[rows0], run.truth[rows1], atol=1e-6):
            raise InputError(
                f'{first.folder} and {run.folder} have different true poses: they are runs on different sources'
            )


def compare(run0: SavedRun, run1: SavedRun) -> Difference | None:
    """Return the difference of two runs with truth; None if they share fewer than two neighbouring frames."""
    errors0, errors1 = (_errors_by_stamp(run) for run in (run0, run1))
    common = sorted(errors0.keys() & errors1.keys())
    if len(common) < 2:
        return None
    first, second = (np.array([errors[key] for key in common]) for errors in (errors0, errors1))
    median = np.median(first)
    ratio = float(np.median(second) / median) if median > 0 else float('nan')
    return Difference(len(common), ratio, paired_p_value(second - first))


def _errors_by_stamp(run: SavedRun) -> dict[tuple[int, int], float]:
    """Return the error [m] of the motion between each two neighbouring frames with a pose, by their stamps."""
    stamps, rows, true_rows = np.intersect1d(run.stamps_ns, run.truth_stamps_ns, return_indices=True)
    if len(stamps) < 2:
        return {}
    frames = np.arange(len(stamps) - 1)
    scale = run.summary.get('alignment_scale', 1.0)
    errors = relative_errors(run.poses[rows], run.truth[true_rows], frames, frames + 1, scale)
    return dict(zip(zip(stamps[:-1].tolist(), stamps[1:].tolist(), strict=True), errors.translation_m, strict=True))


def paired_p_value(differences: np.ndarray) -> float:
    """Return the two-sided p-value of a mean of paired differences (N,), by swapping the pairs of whole blocks.

    A permutation test (Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005, 3.2). It is exact for few
    blocks and random with a fixed seed for many, so that the same runs give the same value.
    """
    sums = np.add.reduceat(differences, np.arange(0, len(differences), BLOCK))
    observed = abs(sums.sum())
    if len(sums) <= EXACT_BLOCKS:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        extra = 0
    else:
        signs = np.random.default_rng(0).choice([-1, 1], (PERMUTATIONS, len(sums)))
        extra = 1  # the observed one
    reached = np.count_nonzero(np.abs(signs @ sums) >= observed * (1 - 1e-12)) + extra
    return float(reached / (len(signs) + extra))
