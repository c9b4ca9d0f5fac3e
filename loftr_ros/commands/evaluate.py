"""Compare matchers on the frames of a sequence: poses of pairs, or with --odometry the trajectory.

SEQUENCE is a folder with calibrations that `loftr_ros play` can open: KITTI odometry, EuRoC, TartanAir, TUM RGB-D,
ScanNet, a COLMAP text model, or the output of `loftr_ros demo`; pairs need true poses. With --odometry it may be a
rosbag too (ROS 1, sqlite3, mcap), and --output gets trajectories, figures and report.html.
"""

from __future__ import annotations

import csv
import itertools
import logging
import time
from pathlib import Path

import numpy as np

from loftr_ros.commands.options import add_config_arguments, read_config
from loftr_ros.commands.output import print_table
from loftr_ros.errors import InputError
from loftr_ros.output_files import writing
from loftr_ros.runtime import prepare_process

logger = logging.getLogger(__name__)

MATCHERS = ('default', 'sift', 'sift+lk', 'orb', 'orb+lk')
HEADER = ('matcher', 'AUC@5/10/20', 'rotation', 'direction', 'inliers', 'correct', 'matches', 'failures', 'ms')
EXPLANATION = """AUC of the pose error at 5, 10 and 20 degrees; medians of the rest: errors of rotation and direction
[deg], inliers, matches correct within 2 px under the true pose, all matches, time of a pair [ms]. Failures: no pose."""


def add_arguments(parser) -> None:
    parser.add_argument('sequence', type=Path)
    parser.add_argument(
        '--matchers',
        nargs='+',
        metavar='NAME',
        help='names of matcher.name, NAME:WEIGHTS, sift, orb; sift+lk, orb+lk: refined by Lucas-Kanade, as the others; '
        f'default: {" ".join(MATCHERS)}, with --odometry: default',
    )
    parser.add_argument(
        '--odometry', choices=('mono', 'stereo', 'rgbd'), help='compute the motion over all frames with this rig'
    )
    parser.add_argument(
        '--truth', default='', metavar='FILE|TOPIC', help='true trajectory: a file in TUM format, or a topic of the bag'
    )
    parser.add_argument('--topics', nargs='+', default=[], metavar='TOPIC', help='image topics of the bag: one, or two')
    parser.add_argument('--depth-topic', default='', metavar='TOPIC', help='depth images of the bag')
    parser.add_argument(
        '--camera-info', type=Path, nargs='+', default=[], metavar='YAML', help='calibrations, as for `loftr_ros play`'
    )
    parser.add_argument('--step', type=int, default=1, help='frames from image 0 to image 1; 0: left and right image')
    parser.add_argument('--max-pairs', type=int, default=0, help='largest number of pairs; 0: all')
    parser.add_argument(
        '-o',
        '--output',
        type=Path,
        metavar='PATH',
        help='write a line for each pair and matcher to this file (CSV); with --odometry a folder',
    )
    add_config_arguments(parser)


def run(options) -> int:
    if options.odometry:
        from loftr_ros.commands import evaluate_odometry

        return evaluate_odometry.run(options)
    from loftr_ros.datasets import open_sequence
    from loftr_ros.evaluation.compared import create_compared
    from loftr_ros.evaluation.relative_pose import pairs, score_pair, summarise
    from loftr_ros.matchers import match_images

    if options.step < 0 or options.max_pairs < 0:
        raise InputError(f'--step and --max-pairs must be 0 or more, got {options.step} and {options.max_pairs}')
    for name in ('truth', 'topics', 'depth_topic', 'camera_info'):
        if getattr(options, name):
            raise InputError(f'--{name.replace("_", "-")} is only for --odometry')
    config = read_config(options)
    for line in prepare_process(config.matcher.keep_memory):
        logger.info(line)
    sequence = open_sequence(options.sequence)
    matchers = {name: create_compared(name, config.matcher) for name in options.matchers or MATCHERS}
    scores, times_ms, lines = {name: [] for name in matchers}, {name: [] for name in matchers}, []
    for pair, frame0, frame1, truth in itertools.islice(pairs(sequence, options.step), options.max_pairs or None):
        for name, matcher in matchers.items():
            started = time.perf_counter()
            matches = match_images(matcher, frame0.image, frame1.image)
            times_ms[name].append(1e3 * (time.perf_counter() - started))
            scores[name].append(score_pair(matches, frame0.camera, frame1.camera, truth, config.pose))
            lines.append((pair, name, *scores[name][-1], times_ms[name][-1]))
    print(f'{sequence.name}: {len(next(iter(scores.values())))} pairs')
    print_table([HEADER, *(row(name, summarise(scores[name]), np.median(times_ms[name])) for name in matchers)])
    print(EXPLANATION)
    if options.output:
        write_csv(options.output, lines)
        print(f'wrote {options.output}')
    return 0


def row(name: str, summary, milliseconds: float) -> tuple[str, ...]:
    auc = '/'.join(f'{value:.2f}' for value in summary.auc)
    counts = (summary.num_inliers, summary.num_correct, summary.num_matches, summary.num_failures, milliseconds)
    angles = (summary.rotation_deg, summary.direction_deg)
    return name, auc, *(f'{angle:.3g}' for angle in angles), *(f'{count:.0f}' for count in counts)


def write_csv(path: Path, lines: list[tuple]) -> None:
    from loftr_ros.evaluation.relative_pose import PairScore

    with writing(path) as unfinished, unfinished.open('w', newline='') as file:
        csv.writer(file).writerows([('pair', 'matcher', *PairScore._fields, 'time_ms'), *lines])
