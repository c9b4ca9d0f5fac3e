"""Settings are defined once, checked, and read from the file form that ROS reads."""

from pathlib import Path

import pytest

from loftr_ros.config import Config, ConfigError, flatten, load, override, parse, to_markdown, to_yaml

ROOT = Path(__file__).parents[1]


def test_default_yaml_and_parameters_page_are_what_the_dataclasses_say():
    assert (ROOT / 'config/default.yaml').read_text() == to_yaml(Config()), 'run `make docs`'
    assert (ROOT / 'docs/parameters.md').read_text() == to_markdown(Config()), 'run `make docs`'


def test_a_number_without_a_point_is_taken_although_yaml_reads_a_word():
    assert override(Config(), {'pose.min_parallax_deg': '1e-1'}).pose.min_parallax_deg == 0.1
    with pytest.raises(ConfigError, match='must be of type float'):
        override(Config(), {'pose.min_parallax_deg': 'one'})


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
        ('matcher.match_threshold', float('nan'), r'must be in 0 \.\. 1'),
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
    with pytest.raises(ConfigError, match='must hold'):
        load(path)
    with pytest.raises(ConfigError, match='cannot read the parameter file'):
        load(tmp_path / 'none.yaml')


def test_names_that_belong_to_ros_are_passed_over(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text('/**:\n  ros__parameters:\n    use_sim_time: true\n    pose.seed: 2\n')
    assert load(path).pose.seed == 2


def test_ambiguous_dotted_and_nested_names_mean_the_same(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text('/**:\n  ros__parameters:\n    matcher: {gcm.align: false}\n')
    assert load(path).matcher.gcm.align is False
