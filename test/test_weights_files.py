"""Files of weights: what is read and written exactly, and what is refused."""

import pickle
import sys
import types

import numpy as np
import pytest
from test_weights import entry, equal
from tiny_networks import conv_and_norm

from loftr_ros.errors import InputError
from loftr_ros.weights import find, load_state, save

torch = pytest.importorskip('torch')


@pytest.fixture
def network():
    return conv_and_norm()


# Numbers


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
@pytest.mark.parametrize('suffix', ['.ckpt', '.safetensors'])
def test_weights_that_are_not_all_finite_are_refused_with_the_tensor_that_is_not(tmp_path, network, value, suffix):
    from safetensors.torch import save_file

    state = network.state_dict()
    state['1.weight'][1] = value
    path = tmp_path / f'diverged{suffix}'
    torch.save(state, path) if suffix == '.ckpt' else save_file(state, path)
    with pytest.raises(InputError, match=r'diverged\..* NaN or infinity in 1 of 7 tensors, first 1\.weight'):
        load_state(path)


def test_integers_and_small_floats_are_accepted_and_an_overflow_of_float32_is_not(tmp_path):
    kinds = [torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn]
    torch.save({str(kind): torch.ones(3).to(kind) for kind in kinds}, tmp_path / 'a.ckpt')
    assert len(load_state(tmp_path / 'a.ckpt')) == len(kinds)
    torch.save({'large': torch.tensor([1e200], dtype=torch.float64)}, tmp_path / 'a.ckpt')
    with pytest.raises(InputError, match='first large'):
        load_state(tmp_path / 'a.ckpt')


def test_weights_that_are_not_all_finite_are_not_written(tmp_path, network):
    state = network.state_dict()
    state['0.bias'][0] = float('nan')
    with pytest.raises(InputError, match=r'first 0\.bias'):
        save(tmp_path / 'new.safetensors', state, entry())
    assert not list(tmp_path.glob('*.safetensors'))


# Reading a file


def test_a_saved_file_gives_back_every_tensor_and_its_entry(tmp_path, network):
    path = tmp_path / 'mine.safetensors'
    save(path, network.state_dict(), entry(), source_sha256='ab')
    assert equal(load_state(path), network.state_dict())
    checkpoint, _ = find(str(path), 'efficient_loftr')
    assert checkpoint == entry(file='mine.safetensors')  # tuples come back as tuples
    assert [item.name for item in tmp_path.iterdir() if item.suffix != ''] == ['mine.safetensors']


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s, 'epoch': 3}])
@pytest.mark.parametrize('prefix', ['', 'matcher.', 'matcher.module.'])
@pytest.mark.parametrize('zipped', [True, False])
def test_wrappers_and_prefixes_are_removed(tmp_path, network, wrap, prefix, zipped):
    path = tmp_path / 'mine.ckpt'
    named = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    torch.save(wrap(named), path, _use_new_zipfile_serialization=zipped)
    assert equal(load_state(path), network.state_dict())


def test_a_prefix_of_only_some_names_is_kept(tmp_path):
    path = tmp_path / 'mine.ckpt'
    torch.save({'matcher.a': torch.zeros(1), 'b': torch.zeros(1)}, path)
    assert set(load_state(path)) == {'matcher.a', 'b'}


@pytest.fixture
def lightning(monkeypatch):
    """A module named like PyTorch Lightning's, there while a file is written and gone when it is read."""
    name = 'pytorch_lightning.callbacks.model_checkpoint'
    module = types.ModuleType(name)
    module.ModelCheckpoint = type('ModelCheckpoint', (), {'__module__': name})
    for part in ('pytorch_lightning', 'pytorch_lightning.callbacks', name):
        monkeypatch.setitem(sys.modules, part, module)
    yield module.ModelCheckpoint
    monkeypatch.undo()


@pytest.mark.skipif(not hasattr(torch.serialization, 'safe_globals'), reason='needs PyTorch 2.5')
def test_the_objects_of_a_lightning_checkpoint_are_ignored(tmp_path, network, lightning, monkeypatch):
    callback = lightning()
    callback.best_model_path = 'somewhere'
    path = tmp_path / 'mine.ckpt'
    scores = {'last': np.float64(0.5), 'all': np.arange(3)}
    document = {'state_dict': network.state_dict(), 'callbacks': {lightning: scores}, 'more': [callback]}
    torch.save(document, path)
    for name in [name for name in sys.modules if name.startswith('pytorch_lightning')]:
        monkeypatch.delitem(sys.modules, name)
    assert equal(load_state(path), network.state_dict())


class Malicious:
    def __reduce__(self):
        return (open, ('/nowhere/loftr_ros_was_here', 'w'))


@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, zipped):
    path = tmp_path / 'bad.ckpt'
    torch.save({'state_dict': {'a': Malicious()}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r'would run \w+\.open; refused'):
        load_state(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty'),
        (b'\n <!DOCTYPE html><html><title>Google Drive - Virus scan warning', 'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:21f5\nsize 46341978\n', 'Git LFS pointer'),
        (b'just some text that is long enough', 'neither a PyTorch file nor a whole safetensors file'),
        (b'PK\x03\x04 cut off', 'damaged, truncated'),
    ],
)
def test_an_error_names_the_kind_of_a_file_without_weights(tmp_path, content, message):
    path = tmp_path / 'bad.ckpt'
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_state(path)


@pytest.mark.parametrize('name', ['cut.safetensors', 'cut.ckpt', 'cut_legacy.ckpt'])
@pytest.mark.parametrize('kept', [0.05, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, network, name, kept):
    path = tmp_path / name
    if path.suffix == '.safetensors':
        save(path, network.state_dict(), entry())
    else:
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization='legacy' not in name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=r'damaged, truncated|whole safetensors'):
        load_state(path)


@pytest.mark.parametrize(
    ('document', 'message'),
    [([1, 2], 'contains a list'), ({}, 'an empty dict'), ({'a': torch.zeros(1), 'b': 3}, "a int at 'b'")],
)
def test_a_file_of_something_else_is_refused(tmp_path, document, message):
    path = tmp_path / 'bad.pth'
    torch.save(document, path)
    with pytest.raises(InputError, match=message):
        load_state(path)


def test_metadata_of_a_later_version_asks_for_an_update(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / 'later.safetensors'
    save_file({'a': torch.zeros(1)}, path, metadata={'loftr_ros': '2'})
    with pytest.raises(InputError, match='update loftr_ros'):
        find(str(path), 'loftr')


def test_weights_are_written_as_safetensors_only(tmp_path, network):
    with pytest.raises(InputError, match=r'end in .safetensors'):
        save(tmp_path / 'mine.pth', network.state_dict(), entry())


def test_an_old_pickle_without_torch_storage_is_refused(tmp_path):
    path = tmp_path / 'bad.pkl'
    path.write_bytes(pickle.dumps({'a': 1}))
    with pytest.raises(InputError):
        load_state(path)
