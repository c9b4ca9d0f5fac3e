"""Number of false poses for unrelated pairs, and of correct poses that the acceptance test rejects.

    . scripts/environment.sh && python benchmarks/false_poses.py ../shared/train-images ../shared/data

The first folder contains photographs in sub-folders (and panoramas in those named pano_*), the second the sequences of
benchmarks/accuracy.py. Writes benchmarks/results/false_poses.md. It takes some minutes with `--pairs 60 --rooms 2`, and
some hours without, on two cores. The constants of pose/acceptance.py were chosen with seed 0; `--seed` draws other
pairs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import report
from pose_pairs import PosePair, related_pairs, unrelated_pairs
from tqdm import tqdm

from loftr_ros.config import Config, PoseConfig
from loftr_ros.datatypes import Matches, PoseFailure, PoseStatus
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.evaluation.metrics import direction_error_deg, rotation_error_deg
from loftr_ros.pose import estimate_relative_pose
from loftr_ros.runtime import prepare_process

MATCHERS = ['default', 'loftr', 'loftr:loftr_small_ot', 'gcm', 'superpoint_nn', 'superglue', 'sift', 'orb']
ESTIMATORS = ('poselib', 'opencv')
SOLVED_DEG = 5.0
CACHED_VIEWS = 16
"""The pyramid of `gcm` for one image takes 160 MB."""


class Score(NamedTuple):
    """Results of one matcher and estimator for all pairs."""

    unrelated: int
    false: Counter  # by kind of pair
    related: int
    solved: int  # of the related pairs, if every pose is accepted
    lost: int  # of the solved ones, rejected or wrong


def is_right(pose, truth: np.ndarray) -> bool:
    """Return whether rotation and direction are within SOLVED_DEG, and there is no direction for a pure rotation."""
    if isinstance(pose, PoseFailure) or rotation_error_deg(pose.rotation, truth[:3, :3]) > SOLVED_DEG:
        return False
    if not np.any(truth[:3, 3]):
        return pose.status in (PoseStatus.PURE_ROTATION, PoseStatus.STATIC)
    return pose.has_translation and direction_error_deg(pose.translation, truth[:3, 3]) <= SOLVED_DEG


def is_false(pose, truth: np.ndarray | None) -> bool:
    """Return whether the pose is a false one."""
    return not isinstance(pose, PoseFailure) and (truth is None or not is_right(pose, truth))


def score(name: str, unrelated: list[PosePair], related: list[PosePair]) -> dict[str, Score]:
    """Return the score of a matcher for each estimator."""
    matcher = create_compared(name, Config().matcher)

    @functools.lru_cache(maxsize=CACHED_VIEWS)
    def features(view):
        return matcher.extract(view.load())

    def pose(matches: Matches, pair: PosePair, config: PoseConfig):
        return estimate_relative_pose(matches, pair.view0.camera, pair.view1.camera, config)

    strict = {estimator: PoseConfig(estimator=estimator) for estimator in ESTIMATORS}
    lax = {estimator: dataclasses.replace(config, max_log10_false_alarms=100.0) for estimator, config in strict.items()}
    false = {estimator: Counter() for estimator in ESTIMATORS}
    solved, lost = Counter(), Counter()
    for pair in tqdm([*unrelated, *related], desc=name, unit='pair'):
        matches = matcher.match(features(pair.view0), features(pair.view1))
        for estimator in ESTIMATORS:
            answer = pose(matches, pair, strict[estimator])
            if pair.is_related:
                was_solved = is_right(pose(matches, pair, lax[estimator]), pair.truth)
                solved[estimator] += was_solved
                lost[estimator] += was_solved and not is_right(answer, pair.truth)
            else:
                false[estimator][pair.kind] += is_false(answer, pair.truth)
    return {e: Score(len(unrelated), false[e], len(related), solved[e], lost[e]) for e in ESTIMATORS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', type=Path, help='folder with folders of photographs')
    parser.add_argument('data', type=Path, help='folder with the data sets')
    parser.add_argument('--matchers', nargs='+', default=MATCHERS, metavar='NAME')
    parser.add_argument('--pairs', type=int, default=600, help='unrelated pairs')
    parser.add_argument('--rooms', type=int, default=14, help='rendered drives among the related pairs')
    parser.add_argument('--seed', type=int, default=1, help='of the pairs')
    parser.add_argument('--print-only', action='store_true', help='leave the file of results as it is')
    options = parser.parse_args()
    prepare_process()
    unrelated = list(unrelated_pairs(options.images, options.data, options.pairs, options.seed))
    related = list(related_pairs(options.images, options.data, options.rooms, options.seed))
    rows = []
    for name in options.matchers:
        for estimator, result in score(name, unrelated, related).items():
            kinds = ', '.join(f'{kind} {count}' for kind, count in result.false.items() if count)
            rows.append(
                [
                    name,
                    estimator,
                    f'{result.false.total()} of {result.unrelated}',
                    kinds or '-',
                    f'{result.solved} of {result.related}',
                    f'{result.lost} ({result.lost / max(result.solved, 1):.1%})',
                ]
            )
            print(*rows[-1], sep=' | ', flush=True)
    header = ['matcher', 'estimator', 'false poses', 'of which', 'related pairs solved', 'lost by the acceptance']
    introduction = (
        f'`python benchmarks/false_poses.py IMAGES DATA --pairs {options.pairs} --rooms {options.rooms} '
        f'--seed {options.seed}`\n\nUnrelated pairs show different places, a photograph and its mirror image, or a '
        'photograph upside down, where the right answer is a turn by 180 degrees without translation, or a failure. A '
        f'related pair is solved when rotation and direction are within {SOLVED_DEG:.0f} degrees and every pose is '
        'accepted; lost when it then fails under the shipped `pose.max_log10_false_alarms`.'
    )
    parts = ['# Poses that are not there', introduction, report.circumstances(), report.table(header, rows)]
    if not options.print_only:
        report.write('false_poses.md', '\n\n'.join(parts) + '\n')


if __name__ == '__main__':
    main()
