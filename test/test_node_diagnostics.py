"""The content of /diagnostics about the matcher."""

import pytest

pytest.importorskip('diagnostic_msgs')

from diagnostic_msgs.msg import DiagnosticStatus

from loftr_ros.ros.diagnostics import Statistics

pytestmark = pytest.mark.ros


def values(statistics):
    return {item.key: item.value for item in statistics.status('matching', {}, '').values}


def test_notes_of_the_last_matcher_are_removed_and_those_of_the_node_kept():
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


def level(statistics, received=None, waiting_for='', warning=''):
    status = statistics.status('matching', received or {}, waiting_for, warning)
    return status.level, status.message


def test_the_level_follows_what_happened_since_the_last_report():
    statistics = Statistics()
    assert level(statistics) == (DiagnosticStatus.OK, 'Waiting for the first messages.')
    for _ in range(2):  # reports of dropped frames only, and one in which nothing came
        statistics.count('dropped', 3)
        statistics.note(last_drop='encoding nv12 is unknown')
        assert level(statistics) == (DiagnosticStatus.ERROR, 'Every frame is dropped: encoding nv12 is unknown')
    assert level(statistics)[0] == DiagnosticStatus.ERROR
    statistics.count('processed', 5)
    statistics.count('dropped', 5)
    assert level(statistics) == (DiagnosticStatus.WARN, '5 of 10 frames were dropped: encoding nv12 is unknown')
    statistics.count('processed', 10)
    statistics.count('dropped', 1)
    assert level(statistics) == (DiagnosticStatus.OK, 'Matching.')
    assert level(statistics, waiting_for='no camera_info')[0] == DiagnosticStatus.ERROR
    statistics.count('processed')
    assert level(statistics, warning='no /clock') == (DiagnosticStatus.WARN, 'no /clock')
    assert level(statistics) == (DiagnosticStatus.OK, 'Matching.')


def test_an_error_of_a_topic_ends_with_messages_on_it():
    statistics = Statistics()
    assert level(statistics, {'/image': 7, '/info': 7})[0] == DiagnosticStatus.OK
    statistics.set_error('qos /image', 'a publisher on /image does not fit')
    assert level(statistics, {'/image': 7, '/info': 8}) == (
        DiagnosticStatus.ERROR,
        'a publisher on /image does not fit',
    )
    assert level(statistics, {'/image': 8, '/info': 8})[0] == DiagnosticStatus.OK


def test_a_pair_that_takes_very_long_is_a_warning(monkeypatch):
    now = [0.0]
    monkeypatch.setattr('loftr_ros.ros.diagnostics.time.monotonic', lambda: now[0])
    statistics = Statistics()
    statistics.busy(True)
    now[0] = 30.0
    assert level(statistics) == (DiagnosticStatus.WARN, 'One pair has been in work for 30 s.')
    statistics.busy(False)
    assert level(statistics)[0] == DiagnosticStatus.OK
