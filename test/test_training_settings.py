"""Configuration files of a training: those of the package, that of a run, and one with an error."""

from pathlib import Path

import pytest
from test_training_loop import EFFICIENT, efficient, settings

from loftr_ros.commands.train import read
from loftr_ros.errors import ConfigError
from loftr_ros.training.runs import RunFolder
from loftr_ros.weights.convert import build_network

ROOT = Path(__file__).parents[1]


def test_the_shipped_configurations_are_read_and_make_a_network():
    files = sorted((ROOT / 'config' / 'train').glob('*.yaml'))
    assert files
    for file in files:
        checkpoint, config = read(file, ['steps=7', 'data.width=96'])
        assert config.steps == 7 and config.data.width == 96
        build_network(checkpoint)


def test_the_settings_file_of_a_run_can_be_used_again(tmp_path):
    folder = RunFolder(tmp_path, efficient(), writes=True)
    folder.open(settings(), 0)
    checkpoint, config = read(tmp_path / 'run.yaml', [])
    assert checkpoint.network == EFFICIENT and config == settings()


def test_a_mistyped_setting_is_refused_with_the_right_name(tmp_path):
    file = tmp_path / 'run.yaml'
    file.write_text('network: {matcher: loftr}\noptimizer: {learning_rat: 1.0}\n')
    with pytest.raises(ConfigError, match=r'did you mean optimizer.learning_rate\?'):
        read(file, [])
