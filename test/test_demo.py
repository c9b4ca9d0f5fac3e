"""The bounds of the demo, and the path from relative poses."""

import dataclasses

import numpy as np
import pytest

from loftr_ros.commands.demo import Bounds, chain, true_pose
from loftr_ros.datasets import rendered_drive
from loftr_ros.datatypes import PoseStatus, RelativePose

GOOD = {
    'pairing': 'stereo',
    'pairs': 10,
    'poses': 10,
    'rotation_deg': 0.1,
    'translation_deg': 1.0,
    'paired': 12,
    'processed': 10,
    'superseded': 1,
    'dropped': 1,
    'ate_percent': float('nan'),
}


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({}, None),
        ({'rotation_deg': 0.31}, 'rotation error 0.310 deg'),
        ({'rotation_deg': float('nan')}, 'rotation error nan'),
        ({'translation_deg': 3.1}, 'direction error'),
        ({'poses': 8}, '8 poses of 10 pairs'),
        ({'pairs': 4, 'poses': 4}, '4 pairs, needed 5'),
        ({'processed': 9}, 'not accounted for'),
        ({'ate_percent': 0.9}, None),
        ({'ate_percent': 1.2}, 'trajectory error 1.20 % of the path'),
    ],
)
def test_only_results_below_the_targets_are_named(change, words):
    found = Bounds().violations({**GOOD, **change})
    assert [words in text for text in found] == ([] if words is None else [True])


@dataclasses.dataclass
class Exact:
    """Relative poses without error, of length 1 as one camera gives them."""

    sequence: object

    def pair(self, index0, index1, status=PoseStatus.OK):
        truth = true_pose(self.sequence, 'temporal', index0, index1)
        estimate = truth.copy()
        estimate[:3, 3] /= np.linalg.norm(truth[:3, 3])
        return index0, index1, RelativePose(estimate, np.eye(6), np.ones(9), 1.0, 0.1, status=status), truth


def test_exact_relative_poses_make_the_true_path():
    sequence = rendered_drive(num_frames=8)
    exact = Exact(sequence)
    pairs = [exact.pair(0, 1), exact.pair(0, 3), exact.pair(3, 4), exact.pair(3, 6)]
    estimated, truth = chain(sequence, pairs)
    assert np.allclose(estimated, truth, atol=1e-9)
    assert np.array_equal(truth, sequence.world_from_cam0[[0, 1, 3, 4, 6]])


def test_the_true_pose_takes_points_from_frame_0_to_frame_1():
    sequence = rendered_drive(num_frames=4)
    point_world = np.array([1.0, 2.0, 0.5, 1.0])
    in_0, in_2 = (np.linalg.inv(sequence.world_from_cam0[i]) @ point_world for i in (0, 2))
    assert np.allclose(true_pose(sequence, 'temporal', 0, 2) @ in_0, in_2)
    assert np.array_equal(true_pose(sequence, 'stereo', 1, 1), sequence.cam1_from_cam0)
