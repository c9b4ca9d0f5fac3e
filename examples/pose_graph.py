"""The smallest SLAM on top of the package: odometry, loop closures by matching, and a pose graph in GTSAM.

    pip install gtsam && python examples/pose_graph.py --output pose_graph

A rendered robot with an RGB-D camera drives its loop one and a half times. Odometry gives the edges between keyframes
and frames. Frames that are near an earlier one are matched with it, and the pairs that have a pose close the loop. It
prints the error of the trajectory before and after, and draws both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gtsam
import numpy as np

from loftr_ros import Config, Odometer, create_matcher
from loftr_ros.datasets import rendered_drive
from loftr_ros.datatypes import RelativePose
from loftr_ros.evaluation.plots import trajectory_plot
from loftr_ros.evaluation.trajectory import absolute_errors
from loftr_ros.geometry import rotation_angle
from loftr_ros.integrations.gtsam import pair_factor, to_pose3
from loftr_ros.odometry.frontend import match_pair
from loftr_ros.settings import override

FRAMES, STEP_M, SIZE = 76, 0.28, (320, 240)
LEAST_GAP = 25
"""Frames between the two of a loop closure."""
NEAR_M, NEAR_DEG = 1.0, 25.0
"""A pair is tried if the odometry puts its frames as near as this."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, default=Path('pose_graph'), help='folder for the pictures')
    parser.add_argument('--matcher', default='default', help='matcher.name')
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    config = override(Config(), {'matcher.name': options.matcher, 'odometry.rig': 'rgbd'})
    sequence = rendered_drive(seed=0, num_frames=FRAMES, size=SIZE, step_m=STEP_M)
    frame_sets = [sequence.frame_set(index, 'rgbd') for index in range(FRAMES)]

    graph, poses, matcher = drive(frame_sets, config)
    num_edges = graph.size()
    closures = close_loops(graph, poses, frame_sets, matcher, config)
    after = optimise(graph, poses, num_edges)
    for name, found in (('odometry', poses), ('with loop closures', after)):
        # Aligned at the first pose only, as for a robot that starts at a known place.
        found = sequence.world_from_cam0[0] @ found
        errors = absolute_errors(found, sequence.world_from_cam0, with_scale=False)
        end_m = np.linalg.norm(found[-1, :3, 3] - sequence.world_from_cam0[-1, :3, 3])
        print(f'{name}: ATE {1e3 * errors.ate_m:.1f} mm, error of the last position {1e3 * end_m:.1f} mm')
        title = f'{name}, {closures} loop closures' if name != 'odometry' else name
        trajectory_plot(found, sequence.world_from_cam0, options.output / f'{name.replace(" ", "_")}.png', title=title)
    print(f'{closures} loop closures; wrote {options.output}/')


def drive(frame_sets, config: Config):
    """Return a graph with an edge from the keyframe to each frame, the poses (N, 4, 4) and the matcher."""
    matcher = create_matcher(config.matcher)
    odometer = Odometer(matcher, config)
    graph = gtsam.NonlinearFactorGraph()
    graph.add(gtsam.PriorFactorPose3(0, gtsam.Pose3(), gtsam.noiseModel.Isotropic.Sigma(6, 1e-6)))
    poses = []
    for frames in frame_sets:
        motion = odometer.process(frames)
        poses.append(poses[-1] if motion.origin_from_cam is None else motion.origin_from_cam.matrix)
        if motion.origin_from_cam is not None and motion.pair is not None:
            graph.add(pair_factor(motion.pair.id0, motion.pair.id1, motion.pair.pose))
    return graph, np.array(poses), matcher


def close_loops(graph, poses: np.ndarray, frame_sets, matcher, config: Config) -> int:
    """Add an edge for each pair of near frames, far apart in time, that match; return their number."""
    count = 0
    for last in range(LEAST_GAP, len(poses)):
        between = np.linalg.inv(poses[: last - LEAST_GAP]) @ poses[last]
        distance = np.linalg.norm(between[:, :3, 3], axis=1)
        angle = np.array([np.degrees(rotation_angle(matrix[:3, :3])) for matrix in between])
        near = np.flatnonzero((distance < NEAR_M) & (angle < NEAR_DEG))
        if not len(near):
            continue
        first = int(near[np.argmin(distance[near])])
        old, new = frame_sets[first], frame_sets[last]
        result = match_pair(matcher, config, old.frame0, new.frame0, old.depth_m, (first, last))
        if isinstance(result.pose, RelativePose):
            graph.add(pair_factor(first, last, result.pose))
            count += 1
    return count


def optimise(graph, poses: np.ndarray, num_trusted: int) -> np.ndarray:
    """Return the poses (N, 4, 4) that fit the edges best; those after the first `num_trusted` edges may be wrong."""
    start = gtsam.Values()
    for key, pose in enumerate(poses):
        start.insert(key, to_pose3(pose))
    parameters = gtsam.GncLMParams()
    parameters.setKnownInliers(list(range(num_trusted)))
    result = gtsam.GncLMOptimizer(graph, start, parameters).optimize()
    return np.array([result.atPose3(key).matrix() for key in range(len(poses))])


if __name__ == '__main__':
    main()
