"""Real images with ground truth through driver, node and recorder over DDS, as `loftr_ros demo --source` runs them."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')

from loftr_ros.ros.live_run import child_setup

pytestmark = pytest.mark.ros
DATA = Path(__file__).parents[2] / 'shared' / 'data'


def run_demo(tmp_path, folder, pairing, settings, *arguments):
    """Return the row of the demo's table; the demo itself fails when its bounds are exceeded."""
    if not (DATA / folder).is_dir():
        pytest.skip(f'{DATA / folder} is absent')
    # Every frame counts, however slow the machine is today.
    values = {'input.process_every_frame': 'true', 'input.image_qos': 'RELIABLE', **settings}
    lines = [f'    {name}: {value}' for name, value in values.items()]
    (tmp_path / 'test.yaml').write_text('/**:\n  ros__parameters:\n' + '\n'.join(lines) + '\n')
    command = [
        '-m',
        'loftr_ros.cli',
        'demo',
        '--source',
        DATA / folder,
        '--pairing',
        pairing,
        '--output',
        tmp_path,
        '--config',
        tmp_path / 'test.yaml',
    ]
    ended = subprocess.run(
        [sys.executable, *map(str, command), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=child_setup(),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / f'matches_{pairing}.png').is_file()
    with (tmp_path / 'table.csv').open() as file:
        return next(csv.DictReader(file))


def test_a_driving_sequence_gives_its_rotation_and_direction(tmp_path):
    row = run_demo(
        tmp_path, 'kitti06', 'temporal', {'matcher.resize_max': 800}, '--rate', '10', '--max-rotation-deg', '0.2'
    )
    assert int(row['published']) == int(row['processed']) == 51 and int(row['poses']) == 50
    assert (tmp_path / 'trajectory.png').is_file()


def test_a_stereo_rig_gives_its_extrinsics(tmp_path):
    row = run_demo(tmp_path, 'tartanair_stereo_rgbd', 'stereo', {}, '--rate', '10', '--max-rotation-deg', '0.2')
    assert int(row['published']) == int(row['poses']) == 10 and float(row['inliers']) > 100
