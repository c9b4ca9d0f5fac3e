"""Drift of the odometry on rendered loops and real sequences, with SIFT and ORB through the same pipeline.

    . scripts/environment.sh && python benchmarks/odometry.py ../shared/data

The folder contains `kitti06`, `tartanair_stereo_rgbd`, `tum_fr1_rgbd` and `euroc_v1_01_at_rest`; the loop is
rendered. All frames are processed in order, with the shipped settings. Writes benchmarks/results/odometry.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import report

from loftr_ros.config import Config
from loftr_ros.datasets import open_sequence, rendered_drive, save_sequence
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.evaluation.odometry_run import OdometryRun, run_odometry, score
from loftr_ros.evaluation.results import summarise, times
from loftr_ros.settings import override

MATCHERS = ('default', 'sift+lk', 'orb+lk')
LOOP_FRAMES = 210
"""Of 7 cm: 14.6 m through a furnished room."""
SETS = {
    'rendered loop': ('mono', 'stereo', 'rgbd'),
    'kitti06': ('mono',),
    'tartanair_stereo_rgbd': ('mono', 'stereo', 'rgbd'),
    'tum_fr1_rgbd': ('rgbd',),
    'euroc_v1_01_at_rest': ('stereo', 'mono'),
}
HEADER = [
    *('set', 'rig', 'matcher', 'frames with a pose', 'path m', 'ATE m', 'ATE % of the path'),
    *('drift %', 'drift deg/m', 'largest rotation deg', 'NEES mean', 'keyframes', 'match ms', 'other ms'),
]
TEXT = """# Odometry

`benchmarks/odometry.py`. `Odometer` with the shipped settings, every frame in order. SIFT and ORB (2048 keypoints,
ratio 0.8, refined by Lucas-Kanade as the default is) go through the same pipeline in the same run.

* ATE: root mean square of the position errors after alignment (SE3, for one camera Sim3).
* Drift: KITTI's definition over 10 to 80 % of the path, because all paths are shorter than 100 m.
* NEES: mean squared error of the poses relative to the first frame over their covariance, for each of 6 degrees of
  freedom; 1 where the covariance is right.
* Times of a frame are medians on one core, beside other work: compare them with each other only.
* `euroc_v1_01_at_rest` has no true poses: the robot does not move, so all its motion is error.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--sets', nargs='+', choices=tuple(SETS), default=tuple(SETS), help='only these; only printed')
    parser.add_argument('--matchers', nargs='+', default=MATCHERS, metavar='NAME', help='instead of %(default)s')
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            sequence = _sequence(name, options.data, Path(folder))
            for rig in SETS[name]:
                for matcher in options.matchers:
                    rows.append(_measure(name, sequence, rig, matcher))
                    print(*(f'{c:.3g}' if isinstance(c, float) else c for c in rows[-1]), flush=True)
    text = f'{TEXT}{report.circumstances()}\n\n{report.table(HEADER, rows)}\n'
    if tuple(options.sets) == tuple(SETS):
        report.write('odometry.md', text)
    else:
        print(text)


def _sequence(name: str, data: Path, folder: Path):
    if name != 'rendered loop':
        sequence = open_sequence(data / name)
        if sequence.world_from_cam0 is None:
            standing = np.tile(np.eye(4), (len(sequence), 1, 1))
            sequence = dataclasses.replace(sequence, world_from_cam0=standing)
        return sequence
    save_sequence(rendered_drive(seed=1, num_frames=LOOP_FRAMES), folder / 'loop')  # so that it is rendered once
    return open_sequence(folder / 'loop')


def _measure(name: str, sequence, rig: str, matcher: str) -> list:
    config = override(Config(), {'input.pairing': 'odometry', 'odometry.rig': rig})
    frame_sets = (sequence.frame_set(index, rig) for index in range(len(sequence)))
    run: OdometryRun = run_odometry(frame_sets, create_compared(matcher, config.matcher), config)
    spent = times(run)
    poses = f'{int(run.has_pose.sum())} of {len(sequence)}'
    if run.has_pose.sum() < 3:
        return [name, rig, matcher, poses, *(len(HEADER) - 4) * ['-']]
    found = score(run, sequence.world_from_cam0[[row.number for row in run.rows]])
    summary = summarise(run, found)
    return [
        name,
        rig,
        matcher,
        poses,
        found.path_m,
        found.errors.ate_m,
        found.ate_percent,
        found.drift.translation_percent,
        found.drift.rotation_deg_per_m,
        float(found.errors.rotation_deg.max()),
        summary['nees_mean'] if summary['nees_mean'] is not None else '-',
        summary['keyframes'],
        f'{spent["match_ms_p50"]:.0f}',
        f'{spent["other_ms_p50"]:.0f}',
    ]


if __name__ == '__main__':
    main()
