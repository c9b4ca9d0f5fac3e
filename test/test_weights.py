"""Weights: which file a setting means, loading into the right network, and the command."""

import dataclasses
import inspect

import pytest

from loftr_ros.cli import main
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.networks import NETWORKS
from loftr_ros.weights import CHECKPOINTS, Checkpoint, find, load_into, load_state, locate, save
from loftr_ros.weights.convert import build_network, convert
from loftr_ros.weights.layouts import matcher_of
from loftr_ros.weights.metadata import raw_metadata

torch = pytest.importorskip('torch')

from tiny_networks import conv_and_norm  # noqa: E402

SMALL = {'widths': (8, 8, 16, 16), 'blocks': (1, 1, 2), 'layers': 1, 'heads': 4}
"""An Efficient LoFTR of few channels."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / 'cache'
    folder.mkdir()
    monkeypatch.setenv('LOFTR_ROS_CACHE', str(folder))
    return folder


@pytest.fixture
def network():
    return conv_and_norm()


def entry(**changes):
    return dataclasses.replace(Checkpoint('mine', 'efficient_loftr', SMALL, licence='MIT'), **changes)


def equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


# The table


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_the_network_of_an_entry_takes_its_settings_and_the_entry_names_them_all(name):
    checkpoint = CHECKPOINTS[name]
    if checkpoint.matcher not in NETWORKS:
        pytest.skip(f'there is no network for {checkpoint.matcher} in weights/convert.py yet')
    accepted = set(inspect.signature(type(build_network(checkpoint)).__init__).parameters) - {'self'}
    # A setting left to the constructor's default would change with that default, and the weights with it.
    assert set(checkpoint.network) == accepted


def test_every_entry_can_be_got_by_program_or_by_hand_and_its_hash_is_one():
    for checkpoint in CHECKPOINTS.values():
        assert checkpoint.page.startswith('https://') or (locate.SHIPPED / checkpoint.file).is_file()
        assert checkpoint.url.startswith('https://') or not checkpoint.url
        assert len(checkpoint.sha256) in (0, 64) and int(checkpoint.sha256 or '0', 16) >= 0


# Which file a setting means


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(ConfigError, match='did you mean outdoor_ds'):
        find('outdor_ds', 'loftr')


def test_missing_weights_say_how_to_get_them(cache):
    with pytest.raises(InputError, match=r'loftr_ros weights get outdoor_ds.*save it as .*cache/loftr_outdoor.ckpt'):
        find('outdoor_ds', 'loftr')


@pytest.mark.parametrize('matcher, name', [('loftr', 'loftr_small'), ('efficient_loftr', 'efficient_small')])
def test_an_empty_name_means_the_first_entry_which_is_shipped(matcher, name, cache):
    checkpoint, path = find('', matcher)
    assert (checkpoint.name, path.parent) == (name, locate.SHIPPED)


def test_a_file_of_the_wrong_hash_under_a_known_name_is_refused(cache):
    (cache / 'loftr_outdoor.ckpt').write_bytes(b'PK something else')
    with pytest.raises(InputError, match=r'has sha256 .* outdoor_ds has 21f5bec5'):
        find('outdoor_ds', 'loftr')


def test_name_equals_path_gives_the_settings_of_the_name_and_the_own_file(tmp_path):
    own = tmp_path / 'mine.ckpt'
    own.write_bytes(b'x')
    checkpoint, path = find(f'indoor_ds_new={own}', 'loftr')
    assert (checkpoint.network['positional_encoding'], path) == ('fixed', own)


def test_a_path_with_the_hash_of_an_entry_is_that_entry(tmp_path, monkeypatch):
    own = tmp_path / 'downloaded (1).ckpt'
    own.write_bytes(b'x')
    known = dataclasses.replace(CHECKPOINTS['outdoor_ot'], sha256=locate.sha256_of(own))
    monkeypatch.setitem(CHECKPOINTS, 'outdoor_ot', known)
    checkpoint, path = find(str(own), 'loftr')
    assert (checkpoint.name, path) == ('outdoor_ot', own)


def test_a_file_without_metadata_needs_the_name_of_an_entry(tmp_path):
    own = tmp_path / 'mine.ckpt'
    own.write_bytes(b'x')
    with pytest.raises(InputError, match=r'does not say for which network it is .* NAME='):
        find(str(own), 'loftr')


def test_a_path_without_a_file_says_so():
    with pytest.raises(InputError, match=r'there is no file .*nowhere\.ckpt'):
        find('nowhere.ckpt', 'loftr')


def test_shipped_weights_are_found_before_the_cache(tmp_path, cache, monkeypatch, network):
    monkeypatch.setattr(locate, 'SHIPPED', tmp_path / 'data')
    monkeypatch.setitem(CHECKPOINTS, 'mine', entry(file='mine.safetensors'))
    for folder in (tmp_path / 'data', cache):
        save(folder / 'mine.safetensors', network.state_dict(), entry())
    assert find('mine', 'efficient_loftr')[1] == tmp_path / 'data' / 'mine.safetensors'


def test_weights_of_another_matcher_are_refused_and_the_fitting_ones_named(tmp_path):
    own = tmp_path / 'mine.ckpt'
    own.write_bytes(b'x')
    with pytest.raises(ConfigError, match=r'are for the matcher loftr, not for efficient_loftr.*eloftr_outdoor'):
        find(f'outdoor_ds={own}', 'efficient_loftr')


def test_a_non_commercial_licence_must_be_accepted(tmp_path):
    own = tmp_path / 'mine.pth'
    own.write_bytes(b'x')
    setting = f'superpoint_v1={own}'
    with pytest.raises(ConfigError, match=r'Magic Leap.*matcher\.accept_license: true'):
        find(setting, 'superpoint')
    assert find(setting, 'superpoint', accept_license=True)[1] == own


def test_a_converted_file_keeps_its_non_commercial_licence(tmp_path, network):
    path = tmp_path / 'mine.safetensors'
    save(path, network.state_dict(), entry(non_commercial=True))
    with pytest.raises(ConfigError, match='accept_license'):
        find(str(path), 'efficient_loftr')


# Into the network


def test_loading_is_exact_counters_included(network):
    state = {name: torch.full_like(tensor, 7) for name, tensor in network.state_dict().items()}
    load_into(network, state)
    assert equal(network.state_dict(), state) and network[1].num_batches_tracked == 7


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('0.bias'), '1 missing, first 0.bias'),
        (lambda s: s.pop('1.num_batches_tracked'), '1 missing, first 1.num_batches_tracked'),
        (lambda s: s.update(new=torch.zeros(1)), '1 unexpected, first new'),
        (lambda s: s.update({'0.bias': torch.zeros(3)}), r'0.bias: \(3,\) in the file, \(2,\) in the network'),
    ],
)
def test_a_state_that_does_not_fit_names_the_first_offender_and_changes_nothing(network, change, message):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    change(state)
    with pytest.raises(InputError, match=message):
        load_into(network, state)
    assert equal(network.state_dict(), before)


def efficient_loftr(**changes):
    return build_network(entry(network={**SMALL, **changes}))


def test_the_error_contains_the_likely_cause():
    network = efficient_loftr()
    with pytest.raises(InputError, match='made with other settings'):
        load_into(network, efficient_loftr(layers=2).state_dict())
    with pytest.raises(InputError, match='weights of superpoint, the network is efficient_loftr'):
        load_into(network, {'convPa.weight': torch.zeros(1)})
    with pytest.raises(InputError, match='not one name is known'):
        load_into(network, {'weight': torch.zeros(1)})
    state = network.state_dict()
    with pytest.raises(InputError, match='load the weights before'):
        load_into(efficient_loftr().prepare_for_inference(), state)
    with pytest.raises(InputError, match='were fused for inference'):
        load_into(efficient_loftr(), network.prepare_for_inference().state_dict())


@pytest.mark.parametrize('other', ['outdoor_ot', 'outdoor_ds'])
def test_dual_softmax_and_optimal_transport_are_not_mixed_up(other):
    name = {'outdoor_ot': 'outdoor_ds', 'outdoor_ds': 'outdoor_ot'}[other]
    small = {'initial_dim': 8, 'block_dims': (8, 8, 16), 'heads': 2}
    networks = [
        build_network(dataclasses.replace(CHECKPOINTS[key], network={**CHECKPOINTS[key].network, **small}))
        for key in (name, other)
    ]
    with pytest.raises(InputError, match='dustbin score: choose the entry of the right kind'):
        load_into(networks[0], networks[1].state_dict())


def test_settings_that_the_network_does_not_have_are_refused():
    with pytest.raises(ConfigError, match='does not take the settings of mine'):
        build_network(entry(network={'colour': 3}))


@pytest.mark.parametrize('matcher', NETWORKS)
def test_weights_of_a_network_are_known_by_their_names(matcher):
    name = next(key for key, checkpoint in CHECKPOINTS.items() if checkpoint.matcher == matcher)
    assert matcher_of(build_network(CHECKPOINTS[name]).state_dict()) == matcher


# The command


def test_convert_writes_a_file_that_needs_no_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(CHECKPOINTS, 'mine', entry())
    network = efficient_loftr()
    source, target = tmp_path / 'in.ckpt', tmp_path / 'new' / 'out.safetensors'
    torch.save({'state_dict': {f'matcher.{name}': t for name, t in network.state_dict().items()}}, source)
    assert main(['weights', 'convert', f'mine={source}', str(target)]) == 0
    assert main(['weights', 'check', str(target)]) == 0
    assert 'fits the network, every tensor' in capsys.readouterr().out
    checkpoint, path = find(str(target), 'efficient_loftr')
    copy = build_network(checkpoint)
    load_into(copy, load_state(path))
    assert equal(copy.state_dict(), network.state_dict())
    assert raw_metadata(target)['source_sha256'] == locate.sha256_of(source)


def test_convert_refuses_weights_that_do_not_fit_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(CHECKPOINTS, 'mine', entry())
    source, target = tmp_path / 'in.ckpt', tmp_path / 'out.safetensors'
    torch.save(efficient_loftr(heads=2, layers=2).state_dict(), source)
    with pytest.raises(InputError, match='made with other settings'):
        convert(f'mine={source}', target)
    assert not target.exists()


def test_list_names_every_entry_and_where_it_is(cache, capsys):
    (cache / 'loftr_outdoor.ckpt').touch()
    assert main(['weights', 'list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f'{name} ') for line in lines) for name in CHECKPOINTS)
    assert next(line for line in lines if line.startswith('outdoor_ds ')).split()[2] == 'present'


def test_get_without_accepting_a_non_commercial_licence_downloads_nothing(cache, capsys):
    assert main(['weights', 'get', 'superpoint_v1']) == 1
    printed = capsys.readouterr()
    assert 'Magic Leap' in printed.out and 'accept-license' in printed.err
    assert not list(cache.iterdir())
