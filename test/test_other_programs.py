"""Configurations of other programs agree with the node: RViz, robot_localization."""

import re
from pathlib import Path

from loftr_ros.config import OdometryConfig

ROOT = Path(__file__).parents[1]


def test_every_topic_of_rviz_is_published_by_the_node():
    import yaml

    config = yaml.safe_load((ROOT / 'config' / 'odometry.rviz').read_text())
    displays = config['Visualization Manager']['Displays']
    topics = {display['Topic']['Value'] for display in displays if 'Topic' in display}
    sources = ''.join(
        (ROOT / 'loftr_ros' / 'ros' / f'{name}.py').read_text() for name in ('outputs', 'odometry_outputs')
    )
    published = {f'/visual_odometry/{name}' for name in re.findall(r"'~/(\w+)'", sources)}
    assert len(topics) == 4 and topics <= published
    assert config['Visualization Manager']['Global Options']['Fixed Frame'] == 'odom'


def test_robot_localization_fuses_velocities_of_the_topic():
    import yaml

    [document] = yaml.safe_load((ROOT / 'config' / 'ekf.yaml').read_text()).values()
    settings = document['ros__parameters']
    assert settings['odom0'] == '/visual_odometry/odometry'
    rows = settings['odom0_config']
    assert len(rows) == 15 and rows[6:12] == 6 * [True] and not any(rows[:6] + rows[12:])
    assert (
        settings['base_link_frame'] == OdometryConfig().base_frame
        and settings['odom_frame'] == OdometryConfig().odom_frame
    )
