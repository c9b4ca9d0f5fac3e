"""Live runs: processes end with their parent, and waiting ends in every case."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from loftr_ros.ros import live_run

pytestmark = pytest.mark.ros

PARENT = """
import os, time
from pathlib import Path
from loftr_ros.ros import live_run
child = live_run.Process('sleeper', [], dict(os.environ), Path('log'))
while 'ready' not in Path('log').read_text():
    child.check()
    time.sleep(0.05)
print(Path('log').read_text().split()[1], flush=True)
time.sleep(1000)
"""


def is_alive(pid):
    stat = Path(f'/proc/{pid}/stat')
    return stat.exists() and stat.read_text().rpartition(')')[2].split()[0] != 'Z'


def test_a_process_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / 'sleeper.py').write_text('import os, time\nprint("ready", os.getpid())\ntime.sleep(1000)\n')
    parent = subprocess.Popen(
        [sys.executable, '-c', PARENT], cwd=tmp_path, stdout=subprocess.PIPE, preexec_fn=live_run.child_setup()
    )
    child = int(parent.stdout.readline())
    assert is_alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


class Recorder:
    """Receives in turn the given counts (paired, processed) of nodes, one report at each spin."""

    def __init__(self, published, *reports):
        self.recording = live_run.Recording(stamps_ns=dict.fromkeys(range(published), 0))
        self._reports = reports
        self.spins = 0

    def spin(self, seconds):
        time.sleep(0.01)
        paired, processed = self._reports[min(self.spins, len(self._reports) - 1)]
        self.recording.diagnostics = {'paired': str(paired), 'processed': str(processed)}
        self.spins += 1


NODE = SimpleNamespace(check=lambda: None, log='node.log')


def test_waiting_ends_when_every_set_is_accounted_for():
    recorder = Recorder(3, (0, 0), (2, 1), (3, 3), (3, 3))
    live_run._drain(recorder, NODE, timeout_s=5)
    assert recorder.spins == 4


def test_waiting_ends_when_two_nodes_of_one_name_report_in_turn():
    recorder = Recorder(3, *[(3, 2), (1, 0)] * 1000)
    with pytest.raises(live_run.LiveRunError, match='no further set'):
        live_run._drain(recorder, NODE, timeout_s=0.2)


def test_a_report_of_more_sets_than_were_published_names_the_other_node(monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '7')
    with pytest.raises(live_run.LiveRunError, match=r'reports 4 sets.*3 were published.*in domain 7'):
        live_run._drain(Recorder(3, (4, 4)), NODE, timeout_s=5)


def test_reports_of_other_nodes_are_not_recorded():
    recorder = SimpleNamespace(recording=live_run.Recording())
    for name, value in (('matcher: matching', '5'), ('camera: driver', '9')):
        status = DiagnosticStatus(name=name, values=[KeyValue(key='paired', value=value)])
        live_run.Recorder._on_diagnostics(recorder, DiagnosticArray(status=[status]))
    assert recorder.recording.count('paired') == 5
