"""Settings: definition, checks, and files in the form of ROS parameter files."""

import dataclasses
from pathlib import Path

import pytest

from loftr_ros.config import Config, MatcherConfig, PoseConfig
from loftr_ros.errors import ConfigError
from loftr_ros.matchers import MATCHERS
from loftr_ros.parameter_files import load, to_markdown, to_yaml
from loftr_ros.settings import flatten, override, parse
from loftr_ros.training.settings import OptimizerConfig, TrainingConfig

ROOT = Path(__file__).parents[1]


def test_default_yaml_and_parameters_page_are_what_the_dataclasses_say():
    assert (ROOT / 'config/default.yaml').read_text() == to_yaml(Config()), 'run `make docs`'
    assert (ROOT / 'docs/parameters.md').read_text() == to_markdown(Config()), 'run `make docs`'


def test_a_number_that_yaml_reads_as_text_is_accepted():
    assert override(Config(), {'pose.min_parallax_deg': '1e-1'}).pose.min_parallax_deg == 0.1
    with pytest.raises(ConfigError, match='must be of type float'):
        override(Config(), {'pose.min_parallax_deg': 'one'})


def test_the_setting_of_the_matcher_lists_all_matchers():
    meaning = next(item.meaning for item in flatten(Config()) if item.name == 'matcher.name')
    assert set(MATCHERS) <= set(meaning.split(', '))


def test_the_shipped_presets_load():
    presets = sorted((ROOT / 'config').glob('*.yaml'))
    assert {p.stem for p in presets} >= {'default', 'mono', 'stereo'}
    assert load(ROOT / 'config/default.yaml') == Config()
    assert load(ROOT / 'config/stereo.yaml').input.pairing == 'stereo'
    assert load(ROOT / 'config/mono.yaml').input.pairing == 'temporal'


def test_yaml_round_trip_keeps_every_value(tmp_path):
    changed = override(Config(), {'pose.seed': 7, 'matcher.gcm.align': False, 'matcher.device': 'cpu'})
    (tmp_path / 'c.yaml').write_text(to_yaml(changed))
    assert load(tmp_path / 'c.yaml') == changed


def test_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r'unknown setting matcher\.max_match; did you mean matcher\.max_matches\?'):
        override(Config(), {'matcher.max_match': 5})


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('matcher.max_matches', 1.5, 'must be of type int, got 1.5'),
        ('matcher.max_matches', True, 'must be of type int, got True'),
        ('matcher.match_threshold', 1.01, r'must be in 0 \.\. 1, got 1.01'),
        ('matcher.match_threshold', float('nan'), 'must be a finite number, got nan'),
        ('pose.estimator', 'ransac', 'must be one of poselib, opencv'),
        ('matcher.name', 3, 'must be of type str'),
    ],
)
def test_wrong_type_or_range_is_refused(name, value, message):
    with pytest.raises(ConfigError, match=message):
        override(Config(), {name: value})


def test_float_settings_accept_an_integer_and_become_float():
    value = override(Config(), {'pose.max_epipolar_error_px': 3}).pose.max_epipolar_error_px
    assert value == 3.0 and isinstance(value, float)


def test_every_setting_has_a_meaning_and_a_type_that_ros_knows():
    for item in flatten(Config()):
        assert item.meaning
        assert type(item.value) in (bool, int, float, str)
        assert item.check(item.value) == item.value


def test_command_line_assignments_are_read_as_yaml():
    config = parse(Config(), ['matcher.gcm.align=false', 'pose.seed=3', 'matcher.weights='])
    assert config.matcher.gcm.align is False and config.pose.seed == 3 and config.matcher.weights == ''
    with pytest.raises(ConfigError, match='must be name=value'):
        parse(Config(), ['pose.seed'])


def test_a_file_of_another_form_is_refused_with_the_form_it_needs(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text('matcher: {name: gcm}\n')
    with pytest.raises(ConfigError, match='must contain'):
        load(path)
    with pytest.raises(ConfigError, match='cannot read the parameter file'):
        load(tmp_path / 'none.yaml')


def test_names_of_ros_parameters_are_ignored(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text('/**:\n  ros__parameters:\n    use_sim_time: true\n    pose.seed: 2\n')
    assert load(path).pose.seed == 2


def test_ambiguous_dotted_and_nested_names_mean_the_same(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text('/**:\n  ros__parameters:\n    matcher: {gcm.align: false}\n')
    assert load(path).matcher.gcm.align is False


def write(folder, text):
    (folder / 'c.yaml').write_text(text)
    return folder / 'c.yaml'


@pytest.mark.parametrize('name', ['/**', '/*', 'matcher', '/matcher', '/robot/matcher', '/*/matcher', '/**/matcher'])
def test_sections_of_this_node_and_wildcards_apply_and_those_of_other_nodes_do_not(tmp_path, name):
    other = '/camera/driver:\n  ros__parameters:\n    frame_rate: 30.0\n    pose.seed: 9\n'
    own = f'{name}:\n  ros__parameters:\n    pose.seed: 2\n    start_type_description_service: false\n'
    for text in (other + own, own + other):
        assert load(write(tmp_path, text)) == override(Config(), {'pose.seed': 2})


def test_a_namespace_may_be_a_level_of_its_own(tmp_path):
    text = '/robot:\n  matcher:\n    ros__parameters: {pose.seed: 2}\n  driver:\n    ros__parameters: {rate: 3}\n'
    assert load(write(tmp_path, text)).pose.seed == 2


def test_later_sections_that_apply_win(tmp_path):
    text = '/**:\n  ros__parameters: {pose.seed: 2}\nmatcher:\n  ros__parameters: {pose.seed: 3}\n'
    assert load(write(tmp_path, text)).pose.seed == 3


def test_a_file_for_other_nodes_alone_is_refused_with_their_names(tmp_path):
    path = write(
        tmp_path, '/camera/driver:\n  ros__parameters: {rate: 3}\nmatchr:\n  ros__parameters: {pose.seed: 2}\n'
    )
    with pytest.raises(ConfigError, match='parameters of /camera/driver, /matchr, but not of matcher'):
        load(path)


def test_an_error_in_a_file_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r'c\.yaml: unknown setting pose\.sed; did you mean pose\.seed'):
        load(write(tmp_path, '/**:\n  ros__parameters: {pose.sed: 2}\n'))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: MatcherConfig(precision='fp8'), 'MatcherConfig.precision must be one of auto, fp32'),
        (lambda: MatcherConfig(subpixel='lucas-kanade'), 'MatcherConfig.subpixel must be one of lucas_kanade, none'),
        (lambda: dataclasses.replace(MatcherConfig(), max_matches=-1), r'max_matches must be in 0 \.\. inf, got -1'),
        (lambda: PoseConfig(min_inliers=20.0), 'min_inliers must be of type int, got 20.0'),
        (lambda: PoseConfig(max_log10_false_alarms=float('-inf')), 'must be a finite number, got -inf'),
        (lambda: Config(pose={'seed': 1}), 'Config.pose must be a PoseConfig'),
        (lambda: TrainingConfig(steps=0), r'TrainingConfig.steps must be in 1 \.\. inf, got 0'),
        (lambda: OptimizerConfig(learning_rate=float('inf')), 'learning_rate must be a finite number, got inf'),
    ],
)
def test_a_config_made_by_its_constructor_or_by_replace_is_checked(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_constructor_makes_a_float_of_an_integer():
    assert isinstance(PoseConfig(max_epipolar_error_px=3).max_epipolar_error_px, float)


def test_the_limit_in_a_message_has_all_its_digits():
    with pytest.raises(ConfigError, match=r'must be in 0\.5 \.\. 0\.9999999, got 1\.0'):
        override(Config(), {'pose.confidence': 1.0})
