"""Evaluation on a real cluster of Ray on this machine, with workers that are killed."""

import json
from functools import partial
from pathlib import Path

import pytest
from test_backends import assert_same_results, die, evaluate, fail, ignore, square

from loftr_ros.datasets import rendered_drive, save_sequence
from loftr_ros.errors import InputError, WorkerError
from loftr_ros.evaluation import jobs
from loftr_ros.evaluation.backends import create_backend

torch = pytest.importorskip('torch')
pytest.importorskip('ray', reason='needs ray: make test-slow installs it')

pytestmark = pytest.mark.slow

MORTAL = """
import os, signal
from pathlib import Path
from loftr_ros.matchers import Matcher
from loftr_ros.matchers.nearest_neighbours import orb

class Mortal(Matcher):
    '''ORB; its second pair kills the process, once.'''
    def __init__(self, config):
        self.name, self.inner, self.count = config.name, orb(config), 0
    def extract(self, image):
        return self.inner.extract(image)
    def match(self, features0, features1):
        self.count += 1
        died = Path(__file__).with_name('died')
        if self.count == 2 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.match(features0, features1)
"""


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """The folder of the matcher `mortal`; workers can import from it and from the folder of this file."""
    info = tmp_path / 'mortal-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: mortal\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text('[loftr_ros.matchers]\nmortal = mortal_matcher:Mortal\n')
    (tmp_path / 'mortal_matcher.py').write_text(MORTAL)
    monkeypatch.syspath_prepend(tmp_path)
    here = Path(__file__).parent
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{here}:{here.parent}')
    monkeypatch.delenv('RAY_ADDRESS', raising=False)
    return tmp_path


@pytest.fixture
def cluster(paths, monkeypatch):
    """Two machines, of which each has room for one job."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': torch.get_num_threads()})
    cluster.add_node(num_cpus=torch.get_num_threads())
    monkeypatch.setenv('RAY_ADDRESS', cluster.address)
    yield cluster
    cluster.shutdown()


@pytest.mark.parametrize('mode', [[], ['--odometry', 'stereo']], ids=['pairs', 'odometry'])
def test_a_worker_killed_in_the_middle_is_replaced_and_the_results_are_those_of_one_process(
    mode, cluster, paths, tmp_path, monkeypatch
):
    monkeypatch.setattr(jobs, 'SEGMENT', 2)  # of 3 pairs
    folders = [tmp_path / 'drive1', tmp_path / 'drive2']
    for seed, folder in enumerate(folders):
        save_sequence(rendered_drive(seed=seed, num_frames=4, size=(320, 240)), folder)
    arguments = [*folders, *mode, '--matchers', 'mortal', 'default', '-o']
    assert evaluate(*arguments, tmp_path / 'cluster', '--backend', 'ray') == 0
    assert (paths / 'died').exists()  # and from now on it does not die
    assert evaluate(*arguments, tmp_path / 'serial') == 0
    assert_same_results(tmp_path / 'serial', tmp_path / 'cluster')
    runs = [json.loads(path.read_text()) for path in (tmp_path / 'cluster').glob('*/*/run.json')]
    assert [run['dropped'] for run in runs] == 4 * [[]]


def test_a_cluster_without_room_for_a_job_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 999)
    with pytest.raises(InputError, match=r'a job has 999 threads, .* set OMP_NUM_THREADS='):
        next(create_backend('ray', None, True).run([partial(square, 1, 0)], ignore))
    with pytest.raises(InputError, match='--jobs 2 is for a cluster on this machine, and RAY_ADDRESS='):
        create_backend('ray', 2, True)


def test_two_workers_on_this_machine_do_what_one_process_does(paths):
    marks = [paths / name for name in ('once', 'always')]
    for folder in marks:
        folder.mkdir()
    reported = {}
    work = [partial(square, 2, 0.5), partial(die, marks[0], 1), partial(square, 3, 0)]
    assert list(create_backend('ray', 2, True).run(work, reported.__setitem__)) == [4, 2, 9]
    assert reported[0] == reported[2] == 3
    failing = [partial(fail, InputError('broken image')), partial(die, marks[1], 99)]
    with pytest.raises(InputError, match=r'^broken image$'):
        next(create_backend('ray', 2, True).run(failing, ignore))
    with pytest.raises(WorkerError, match='3 workers died in the same job'):
        next(create_backend('ray', 2, True).run(failing[1:], ignore))
