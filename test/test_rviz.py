"""The RViz configuration names topics that the node publishes."""

import re
from pathlib import Path

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
