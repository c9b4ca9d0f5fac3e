"""Test of the covariance of relative poses, of two views and of odometry, by their errors (NEES) on rendered drives.

    . scripts/environment.sh && python benchmarks/covariance.py

The normalised estimation error squared, per degree of freedom, has a mean of 1, and is below the 95 % point of the
chi-square distribution in 95 % of the pairs, if the covariance is right. Writes benchmarks/results/covariance.md.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import report
from pose_pairs import drive_pair
from tqdm import tqdm

from loftr_ros import geometry
from loftr_ros.config import Config, PoseConfig
from loftr_ros.datasets import rendered_drive
from loftr_ros.datatypes import FrameSet, PoseFailure
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.odometry.odometer import Odometer
from loftr_ros.pose import estimate_relative_pose
from loftr_ros.runtime import prepare_process
from loftr_ros.settings import override

STEPS = (1, 2, 3, 5, 8)
STARTS = (0, 12, 24)
CHI_SQUARE_95 = {2: 5.991, 3: 7.815}
RIGS = ('stereo', 'rgbd')
IMAGE_NOISE = (0.0, 6.0)
"""Standard deviations of the noise that is added to the images, which already have 1.5 [grey values]."""


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


def of_two_views(names: list[str], rooms: range) -> list[list]:
    """Return the rows of the table of poses from two views."""
    rows = []
    for name in names:
        matcher = create_compared(name, Config().matcher)
        rotation, direction, failures = defaultdict(list), defaultdict(list), 0
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
    return rows


def of_rigs(names: list[str], rooms: range) -> list[list]:
    """Return the rows of the table of odometry: the pose of a later frame relative to the first one."""
    rows = []
    for name in names:
        for rig in RIGS:
            config = override(Config(), {'odometry.rig': rig})
            matcher = create_compared(name, config.matcher)
            for noise in IMAGE_NOISE:
                rotation, translation, failures = defaultdict(list), defaultdict(list), 0
                for step, first, second, truth in tqdm(
                    rig_pairs(rooms, rig, noise, config), desc=f'{name} {rig} {noise:g}'
                ):
                    odometer = Odometer(matcher, config)
                    odometer.process(first)
                    pose = odometer.process(second).pair.pose
                    if isinstance(pose, PoseFailure):
                        failures += 1
                        continue
                    error = truth[:3, 3] - pose.translation
                    for group in ('all', f'{step} apart'):
                        rotation[group].append(nees(pose, truth)[0])
                        translation[group].append(error @ np.linalg.solve(pose.covariance[:3, :3], error) / 3)
                for group, values in rotation.items():
                    row = [name, rig, f'{noise:g}', group, len(values)]
                    row += [summary(values, 3), summary(translation[group], 3), failures if group == 'all' else '']
                    rows.append(row)
                    print(*row, sep=' | ', flush=True)
    return rows


def rig_pairs(rooms: range, rig: str, noise: float, config: Config) -> Iterator[tuple]:
    """Yield the distance of two frames, the sets of both, and the true motion between them."""
    for room in rooms:
        drive = rendered_drive(room)
        rng = np.random.default_rng(room)
        for start in STARTS:
            first = noisy(drive.frame_set(start, rig), noise, config, rng)
            for step in STEPS:
                second = noisy(drive.frame_set(start + step, rig), noise, config, rng)
                poses = drive.world_from_cam0
                yield step, first, second, np.linalg.inv(poses[start + step]) @ poses[start]


def noisy(frames: FrameSet, noise: float, config: Config, rng) -> FrameSet:
    """Return a set with normal noise on the images, and on the inverse depth as the settings of the odometry say."""

    def changed(frame):
        if frame is None or not noise:
            return frame
        image = frame.image + noise * rng.standard_normal(frame.image.shape, np.float32)
        return dataclasses.replace(frame, image=np.clip(np.rint(image), 0, 255).astype(np.uint8))

    depth = frames.depth_m
    if depth is not None:
        inverse = 1 / depth + config.odometry.depth_noise_per_m * rng.standard_normal(depth.shape, np.float32)
        depth = np.where(inverse > 0, 1 / inverse, np.nan).astype(np.float32)
    return dataclasses.replace(frames, frame0=changed(frames.frame0), frame1=changed(frames.frame1), depth_m=depth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--matchers', nargs='+', default=['default', 'sift'], metavar='NAME')
    parser.add_argument('--rooms', type=int, default=20)
    parser.add_argument('--seed', type=int, default=4000, help='of the first room')
    parser.add_argument('--print-only', action='store_true', help='leave the file of results as it is')
    options = parser.parse_args()
    prepare_process()
    rooms = range(options.seed, options.seed + options.rooms)
    rigs, views = of_rigs(options.matchers, rooms), of_two_views(options.matchers, rooms)
    introduction = (
        f'`python benchmarks/covariance.py --rooms {options.rooms} --seed {options.seed}`\n\nPairs of rendered drives, '
        f'frames {", ".join(map(str, STEPS))} apart. Mean / median / share within the 95 % bound of the normalised '
        'estimation error squared per degree of freedom. A right covariance has 1.00 / 0.79 / 0.95 for a rotation or a '
        'translation, 1.00 / 0.69 / 0.95 for a direction.'
    )
    of_odometry = (
        '## Odometry\n\nThe second frame relative to the first one. `noise`: added to the images [grey values]. The '
        'inverse depth of `rgbd` has normal noise of `odometry.depth_noise_per_m` in each pixel.'
    )
    parts = [
        '# Whether the covariance is right',
        introduction,
        report.circumstances(),
        '## Two views',
        report.table(['matcher', 'pairs', 'poses', 'rotation', 'direction', 'failures'], views),
        of_odometry,
        report.table(['matcher', 'rig', 'noise', 'pairs', 'poses', 'rotation', 'translation', 'failures'], rigs),
    ]
    if not options.print_only:
        report.write('covariance.md', '\n\n'.join(parts) + '\n')


if __name__ == '__main__':
    main()
