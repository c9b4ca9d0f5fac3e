"""What /diagnostics says of the matcher at work."""

import pytest

pytest.importorskip('diagnostic_msgs')

from loftr_ros.ros.diagnostics import Statistics

pytestmark = pytest.mark.ros


def values(statistics):
    return {item.key: item.value for item in statistics.status('matching', {}, '').values}


def test_what_the_last_matcher_noted_goes_with_it_and_what_the_node_noted_stays():
    statistics = Statistics()
    statistics.note(last_drop='late')
    statistics.note_pair(matcher='loftr:a', matches=9, precision='fp16, drift 0.01', resize_max='360')
    assert values(statistics)['precision'] == 'fp16, drift 0.01'
    statistics.note_pair(matcher='gcm', matches=10)
    found = values(statistics)
    assert (found['matcher'], found['matches'], found['last_drop']) == ('gcm', '10', 'late')
    assert not {'precision', 'resize_max'} & set(found)


def test_a_pair_without_a_pose_warns_until_one_has_it():
    statistics = Statistics()
    statistics.note_pair(status='TOO_FEW_MATCHES')
    assert 'no pose' in statistics.status('matching', {}, '').message
    statistics.note_pair(status='OK')
    assert statistics.status('matching', {}, '').message == 'Matching.'
