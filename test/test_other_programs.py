"""Configurations of other programs agree with the node: RViz, Foxglove, robot_localization."""

import json
import re
from pathlib import Path

from loftr_ros.config import OdometryConfig

ROOT = Path(__file__).parents[1]


def published():
    """Return the topics of the node with its name in odometry.launch.py."""
    sources = ''.join(
        (ROOT / 'loftr_ros' / 'ros' / f'{name}.py').read_text() for name in ('outputs', 'odometry_outputs')
    )
    return {f'/visual_odometry/{name}' for name in re.findall(r"'~/(\w+)'", sources)}


def test_every_topic_of_rviz_is_published_by_the_node():
    import yaml

    config = yaml.safe_load((ROOT / 'config' / 'odometry.rviz').read_text())
    displays = config['Visualization Manager']['Displays']
    topics = {display['Topic']['Value'] for display in displays if 'Topic' in display}
    assert len(topics) == 4 and topics <= published()
    assert config['Visualization Manager']['Global Options']['Fixed Frame'] == 'odom'


def test_every_topic_and_field_of_foxglove_is_published_by_the_node():
    layout = json.loads((ROOT / 'config' / 'odometry.foxglove.json').read_text())
    panels = layout['configById']

    def shown(part):
        return [part] if isinstance(part, str) else shown(part['first']) + shown(part['second'])

    assert sorted(shown(layout['layout'])) == sorted(panels)
    topics = {*panels['3D!trajectory']['topics'], panels['Image!matches']['imageMode']['imageTopic']}
    fields = {line.split()[1] for line in (ROOT / 'msg/OdometryInfo.msg').read_text().splitlines() if line}
    for path in (path['value'] for panel in panels.values() for path in panel.get('paths', [])):
        topic, _, field = path.partition('.')
        topics.add(topic)
        assert field in fields
    assert len(topics) == 5 and topics <= published()
    assert panels['3D!trajectory']['followTf'] == OdometryConfig().odom_frame


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
