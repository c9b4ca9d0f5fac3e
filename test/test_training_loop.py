"""The training loop on small networks: learning, resuming, and several processes."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from loftr_ros.errors import ConfigError, InputError, TrainingError
from loftr_ros.training.batch import Pair, collate
from loftr_ros.training.data import PairDataset
from loftr_ros.training.homography import homography_points, sample_view
from loftr_ros.training.loop import learning_rate, train
from loftr_ros.training.settings import DataConfig, OptimizerConfig, TrainingConfig
from loftr_ros.training.step import coarse_precision
from loftr_ros.training.steps import make_step
from loftr_ros.training.supervision import look_up
from loftr_ros.weights import Checkpoint, load_into, load_state
from loftr_ros.weights.convert import build_network

ROOT = Path(__file__).parents[1]
EFFICIENT = {'widths': (8, 8, 16, 32), 'blocks': (1, 1, 1), 'layers': 1, 'heads': 4}
LOFTR = {'initial_dim': 8, 'block_dims': (8, 16, 32), 'coarse_layers': ('self', 'cross'), 'heads': 4}


class Shifts:
    """Pairs of a random texture and itself, shifted by whole pixels; index by index as a data set gives them."""

    def __init__(self, size=64, sizes=1000):
        self.size, self.count = size, sizes

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        noise = cv2.GaussianBlur(rng.standard_normal((160, 160)).astype(np.float32), (0, 0), 1.5)
        texture = np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
        shift = np.eye(3)
        shift[:2, 2] = rng.integers(-12, 13, 2)
        place = np.array([[1, 0, 48], [0, 1, 48], [0, 0, 1.0]])
        size = (self.size, self.size)
        image0, image1 = sample_view(texture, place, size), sample_view(texture, place @ np.linalg.inv(shift), size)
        return Pair(
            image0, image1, homography_points(shift, size, size), homography_points(np.linalg.inv(shift), size, size)
        )


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def efficient(**settings):
    return Checkpoint('tiny', 'efficient_loftr', {**EFFICIENT, **settings})


def settings(**values):
    data = DataConfig(workers=values.pop('workers', 0))
    optimizer = OptimizerConfig(warmup_steps=2, fine_matches=16, learning_rate=values.pop('learning_rate', 2e-3))
    values = {'steps': 6, 'batch': 2, 'device': 'cpu', 'validate_every': 1000, **values}
    return TrainingConfig(data=data, optimizer=optimizer, **values)


def column(folder, name):
    with open(folder / 'log.csv') as stream:
        return [float(row[name]) for row in csv.DictReader(stream)]


class StopAfter(Shifts):
    """Sends this process SIGTERM when pair `index` is asked for."""

    def __init__(self, index):
        super().__init__()
        self.index = index

    def __getitem__(self, index):
        if index == self.index:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


@pytest.mark.parametrize('checkpoint', [efficient(), Checkpoint('tiny', 'loftr', LOFTR)], ids=lambda c: c.matcher)
def test_a_run_stopped_by_sigterm_continues_with_the_same_steps(checkpoint, tmp_path):
    whole = train(checkpoint, settings(), tmp_path / 'whole', Shifts(), progress=False)
    assert train(checkpoint, settings(), tmp_path / 'parts', StopAfter(6), progress=False) is None
    assert len(column(tmp_path / 'parts', 'loss')) == 3
    parts = train(checkpoint, settings(), tmp_path / 'parts', Shifts(), progress=False)
    assert column(tmp_path / 'parts', 'loss') == column(tmp_path / 'whole', 'loss')
    for name, tensor in load_state(whole).items():
        assert torch.equal(tensor, load_state(parts)[name]), name


def test_rows_of_the_log_after_the_checkpoint_are_written_once(tmp_path):
    train(efficient(), settings(), tmp_path, StopAfter(6), progress=False)
    with open(tmp_path / 'log.csv', 'a') as stream:  # as a run that was killed later, without a checkpoint
        stream.write('4,9,9,9,9,9,9\n')
    train(efficient(), settings(), tmp_path, Shifts(), progress=False)
    assert column(tmp_path, 'step') == [1, 2, 3, 4, 5, 6] and 9 not in column(tmp_path, 'loss')


def test_the_exported_weights_are_those_of_the_best_validation_and_fit_the_matcher(tmp_path):
    path = train(
        efficient(), settings(steps=4, validate_every=2), tmp_path, Shifts(), validation=Shifts(sizes=2), progress=False
    )
    assert path.name == 'tiny.safetensors' and (tmp_path / 'best.safetensors').exists()
    with open(tmp_path / 'validation.csv') as stream:
        rows = list(csv.DictReader(stream))
    assert [row['step'] for row in rows] == ['2', '4']
    network = build_network(efficient())
    load_into(network, load_state(path))
    scores = [float(row['score']) for row in rows]
    network.eval()
    step = make_step(network, settings())
    count = step.count_matches(collate([Shifts()[0]])).plus(step.count_matches(collate([Shifts()[1]])))
    assert count.score == pytest.approx(max(scores), abs=1e-5)  # the log has six digits
    run = yaml.safe_load((tmp_path / 'run.yaml').read_text())
    assert run['network']['matcher'] == 'efficient_loftr' and run['optimizer']['warmup_steps'] == 2


def test_a_training_that_diverges_ends_with_a_message_and_without_weights(tmp_path):
    with pytest.raises(TrainingError, match=r'the training diverged; .* lower optimizer\.learning_rate'):
        train(efficient(), settings(learning_rate=1e30, steps=20), tmp_path, Shifts(), progress=False)
    assert not list(tmp_path.glob('*.safetensors')) and not (tmp_path / 'last.pt').exists()


def test_a_run_with_an_invalid_state_is_not_resumed(tmp_path):
    train(efficient(), settings(steps=1), tmp_path, Shifts(), progress=False)
    state = torch.load(tmp_path / 'last.pt', weights_only=True)
    name = next(iter(state['network']))
    state['network'][name].flatten()[0] = float('nan')
    torch.save(state, tmp_path / 'last.pt')
    with pytest.raises(InputError, match=r'last\.pt contains NaN or infinity in 1 of'):
        train(efficient(), settings(steps=2), tmp_path, Shifts(), progress=False)
    for other in ({'step': 1}, [1, 2]):
        torch.save(other, tmp_path / 'last.pt')
        with pytest.raises(InputError, match=r'last\.pt has no .*network.* it is not the state of a run'):
            train(efficient(), settings(steps=2), tmp_path, Shifts(), progress=False)


def test_a_run_is_not_resumed_with_another_network(tmp_path):
    train(efficient(), settings(steps=1), tmp_path, Shifts(), progress=False)
    with pytest.raises(ConfigError, match='choose another --output'):
        train(efficient(layers=2), settings(steps=1), tmp_path, Shifts(), progress=False)


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine():
    config = dataclasses.replace(settings(), steps=102)
    rates = [learning_rate(step, config) for step in (0, 1, 2, 52, 102)]
    assert rates == pytest.approx([1e-3, 2e-3, 2e-3, 1e-3, 0.0])
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, final_rate=0.2))
    rates = [learning_rate(step, config) for step in (0, 1, 2, 52, 102)]
    assert rates == pytest.approx([1e-3, 2e-3, 2e-3, 1.2e-3, 0.4e-3])  # half way between 2e-3 and a fifth of it


def test_precision_counts_mutual_confident_cells_within_a_cell_of_the_truth():
    points = torch.full((1, 8, 32, 2), float('nan'))
    points[0, 0, ::8] = torch.tensor([[0.0, 0.0], [8.0, 3.0], [float('nan')] * 2, [8.0, 0.0]])
    confidence = torch.tensor([[0.9, 0, 0, 0], [0, 0.6, 0, 0], [0, 0, 0.8, 0], [0, 0, 0, 0.1]])
    found, right = coarse_precision((confidence + 1e-9).log()[None], points, columns1=4)
    assert (int(found), int(right)) == (3, 2)  # cell 2 is nowhere, cell 3 too uncertain


def test_fine_every_limits_the_refined_pairs_but_not_the_coarse_truth():
    batch = collate([Shifts()[0]] * 5)
    network = build_network(efficient())
    for every, refined in ((1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (4, [0, 4]), (9, [0])):
        step = make_step(
            network,
            dataclasses.replace(
                settings(), optimizer=dataclasses.replace(OptimizerConfig(), fine_matches=7, fine_every=every)
            ),
        )
        truth = step.truth(batch, seeds=list(range(5)))
        assert truth.picked.batch_index.tolist() == [number for number in refined for _ in range(7)]
        assert truth.coarse.match.batch_index.unique().tolist() == [0, 1, 2, 3, 4]


def test_only_pairs_with_a_match_are_fused_and_one_when_there_is_none():
    network = build_network(efficient()).eval()
    pairs = collate([Shifts()[index] for index in range(3)])
    images, cells = (pairs.image0, pairs.image1), torch.tensor([9, 18])
    sizes = []
    network.fine_preprocess.register_forward_hook(lambda _module, _inputs, fused: sizes.append(len(fused)))
    with torch.no_grad():
        some = network.training_output(*images, torch.tensor([2, 2]), cells, cells)
        alone = network.training_output(*(image[2:] for image in images), torch.tensor([0, 0]), cells, cells)
        network.training_output(*images, *torch.zeros(3, 0, dtype=torch.long))
    assert sizes == [1] * 6
    for name in ('pixel_log_confidence', 'subpixel_similarity'):
        assert torch.allclose(getattr(some, name), getattr(alone, name), atol=1e-4), name


# --- Several processes ----------------------------------------------------------------------------------------------

TWO_PROCESSES = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {test!r}]
import torch
torch.set_num_threads(1)
from loftr_ros.training.loading import Batches, load, worker_death_as_error
from loftr_ros.training.loop import train
from test_training_loop import LOFTR, Checkpoint, Shifts, efficient, settings
if __name__ == '__main__':
    train(efficient(), settings(steps=3, batch=4), Path({folder!r}), Shifts(), Shifts(sizes=3), progress=False)
"""


def test_two_processes_have_the_loss_of_one_with_the_joined_batch(tmp_path):
    train(efficient(), settings(steps=3, batch=4), tmp_path / 'one', Shifts(), Shifts(sizes=3), progress=False)
    program = tmp_path / 'two.py'
    program.write_text(TWO_PROCESSES.format(root=str(ROOT), test=str(ROOT / 'test'), folder=str(tmp_path / 'two')))
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(program)]
    result = subprocess.run(launcher, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    one, two = (column(tmp_path / name, 'loss') for name in ('one', 'two'))
    assert two[0] == pytest.approx(one[0], rel=1e-5)  # the log has six digits
    assert two == pytest.approx(one, rel=1e-3)
    one, two = (column(tmp_path / name, 'gradient_norm') for name in ('one', 'two'))
    # torch's own batch norm in float32 is 0.3 % off the gradient in float64, the joined one 1e-6; steps enlarge it.
    assert two == pytest.approx(one, rel=0.03)
    state0, state1 = (load_state(tmp_path / name / 'tiny.safetensors') for name in ('one', 'two'))
    for name in state0:
        if name.endswith('running_var'):
            assert torch.allclose(state0[name], state1[name], rtol=0.01), name  # for the same reason


# --- Learning -------------------------------------------------------------------------------------------------------


class OnePair:
    """The same pair at every index."""

    def __init__(self, pair):
        self.pair = pair

    def __len__(self):
        return 1

    def __getitem__(self, _index):
        return self.pair


def test_a_tiny_network_overfits_one_rendered_pair_to_a_pixel(tmp_path):
    scene = dataclasses.replace(DataConfig().scene, rooms=0.0, wide=0.0)
    data = DataConfig(
        photograph_weight=0, panorama_weight=0, light_change=0, occluders=0, width=96, height=96, scene=scene
    )
    pair = OnePair(PairDataset(data, seed=1, length=1)[0])
    checkpoint = efficient(widths=(8, 16, 32, 64))
    config = settings(steps=220, batch=1, learning_rate=5e-3)
    path = train(checkpoint, config, tmp_path, pair, pair, progress=False)
    loss = column(tmp_path, 'loss')
    assert np.mean(loss[-10:]) < 0.2 * np.mean(loss[:5])

    network = build_network(checkpoint).eval()
    load_into(network, load_state(path))
    batch = collate([pair[0]])
    with torch.no_grad():
        # Cells at the border find partners that the camera moved out of the image: left out, as by the matchers.
        matches = network(batch.image0, batch.image1, border=1)
    error = (look_up(batch.points01, matches.batch_index, matches.keypoints0) - matches.keypoints1).norm(dim=1)
    assert len(error) >= 25 and (error <= 1).float().mean() >= 0.9  # a place without truth counts as wrong


# --- Files of a run --------------------------------------------------------------------------------------------------


def test_tensorboard_gets_the_figures_of_the_log_where_it_is_installed(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path / 'tensorboard')

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append('closed')

    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', types.SimpleNamespace(SummaryWriter=SummaryWriter))
    train(efficient(), settings(steps=2), tmp_path, Shifts(), Shifts(sizes=1), progress=False)
    losses = [(step, value) for name, value, step in written[:-1] if name == 'log/loss']
    assert losses == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in enumerate(column(tmp_path, 'loss'), 1)]
    assert [step for name, _, step in written[:-1] if name == 'validation/score'] == [2]
    assert written[-1] == 'closed'


def test_without_tensorboard_a_run_has_its_other_files(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)  # as if it were not installed
    train(efficient(), settings(steps=1), tmp_path, Shifts(), progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {'run.yaml', 'log.csv', 'last.pt', 'tiny.safetensors'}
