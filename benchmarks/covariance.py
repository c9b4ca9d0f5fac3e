"""Test of the covariance of relative poses by their errors (NEES) on rendered drives.

    . scripts/environment.sh && python benchmarks/covariance.py

The normalised estimation error squared, per degree of freedom, has a mean of 1, and is below the 95 % point of the
chi-square distribution in 95 % of the pairs, if the covariance is right. Writes benchmarks/results/covariance.md.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
import report
from pose_pairs import drive_pair
from tqdm import tqdm

from loftr_ros import geometry
from loftr_ros.config import Config, PoseConfig
from loftr_ros.datatypes import PoseFailure
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.pose import estimate_relative_pose
from loftr_ros.runtime import prepare_process

STEPS = (1, 2, 3, 5, 8)
STARTS = (0, 12, 24)
CHI_SQUARE_95 = {2: 5.991, 3: 7.815}


def nees(pose, truth: np.ndarray) -> tuple[float, float | None]:
    """Return those of the rotation (3 degrees of freedom) and of the direction (2), None if it is not given."""
    error = geometry.vector_from_rotation(truth[:3, :3] @ pose.rotation.T)
    of_rotation = error @ np.linalg.solve(pose.covariance[3:, 3:], error) / 3
    if not pose.has_translation:
        return of_rotation, None
    across = np.linalg.svd(pose.translation[None])[2][1:]  # (2, 3), perpendicular to the direction
    error = across @ truth[:3, 3] / np.linalg.norm(truth[:3, 3])
    return of_rotation, error @ np.linalg.solve(across @ pose.covariance[:3, :3] @ across.T, error) / 2


def summary(values: list[float], freedom: int) -> str:
    """Return mean, median and the share within the 95 % bound."""
    if not values:
        return '-'
    within = np.mean(np.array(values) * freedom <= CHI_SQUARE_95[freedom])
    return f'{np.mean(values):.2f} / {np.median(values):.2f} / {within:.2f}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--matchers', nargs='+', default=['default', 'sift'], metavar='NAME')
    parser.add_argument('--rooms', type=int, default=20)
    parser.add_argument('--seed', type=int, default=4000, help='of the first room')
    parser.add_argument('--print-only', action='store_true', help='leave the file of results as it is')
    options = parser.parse_args()
    prepare_process()
    rows = []
    for name in options.matchers:
        matcher = create_compared(name, Config().matcher)
        rotation, direction, failures = defaultdict(list), defaultdict(list), 0
        rooms = range(options.seed, options.seed + options.rooms)
        for room, start, step in tqdm([(r, i, k) for r in rooms for i in STARTS for k in STEPS], desc=name):
            pair = drive_pair(room, start, step)
            matches = matcher.match(*(matcher.extract(view.load()) for view in (pair.view0, pair.view1)))
            pose = estimate_relative_pose(matches, pair.view0.camera, pair.view1.camera, PoseConfig())
            if isinstance(pose, PoseFailure):
                failures += 1
                continue
            of_rotation, of_direction = nees(pose, pair.truth)
            for group in ('all', f'{step} apart', pose.status.name):
                rotation[group].append(of_rotation)
                if of_direction is not None:
                    direction[group].append(of_direction)
        for group, values in rotation.items():
            row = [name, group, len(values), summary(values, 3), summary(direction[group], 2)]
            rows.append([*row, failures if group == 'all' else ''])
            print(*rows[-1], sep=' | ', flush=True)
    header = ['matcher', 'pairs', 'poses', 'rotation', 'direction', 'failures']
    introduction = (
        f'`python benchmarks/covariance.py --rooms {options.rooms} --seed {options.seed}`\n\nPairs of rendered drives, '
        f'frames {", ".join(map(str, STEPS))} apart. Mean / median / share within the 95 % bound of the normalised '
        'estimation error squared per degree of freedom. A right covariance has 1.00 / 0.79 / 0.95 for the rotation, '
        '1.00 / 0.69 / 0.95 for the direction.'
    )
    parts = ['# Whether the covariance is right', introduction, report.circumstances(), report.table(header, rows)]
    if not options.print_only:
        report.write('covariance.md', '\n\n'.join(parts) + '\n')


if __name__ == '__main__':
    main()
