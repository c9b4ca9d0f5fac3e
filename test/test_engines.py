"""Other engines and ONNX files give the results of the networks."""

import sys

import numpy as np
import pytest
import torch
from test_detector_free import shifted_pair
from test_matchers import texture
from tiny_networks import save_tiny

from loftr_ros import cli
from loftr_ros.config import MatcherConfig
from loftr_ros.errors import ConfigError, MissingDependencyError
from loftr_ros.matchers import create_matcher, engines, match_images
from loftr_ros.matchers.onnx_files import write_onnx
from loftr_ros.networks import NETWORKS, part_classes
from loftr_ros.weights.convert import load_network

each_network = pytest.mark.parametrize('name', [name for name, entry in NETWORKS.items() if entry.parts])


@pytest.mark.slow
@each_network
@pytest.mark.parametrize('engine', engines.ENGINES)
def test_an_engine_gives_the_matches_of_torch(name, engine, tmp_path):
    for package in {'onnxruntime': ('onnx', 'onnxruntime'), 'openvino': ('onnx', 'openvino')}.get(engine, ()):
        pytest.importorskip(package, reason=f'needs {package}: make test-slow installs it')
    path, used_by = save_tiny(name, tmp_path), NETWORKS[name].matcher or name
    reference, matcher = (
        create_matcher(MatcherConfig(used_by, path, device='cpu', precision='fp32', engine=kind, subpixel='none'))
        for kind in ('torch', engine)
    )
    # Compiling for each further size takes a minute.
    for height, width in ((240, 320), (245, 333), (160, 1000))[: 1 if engine == 'compile' else 3]:
        images = shifted_pair(height, width)
        wanted, found = (match_images(each, *images) for each in (reference, matcher))
        assert len(found) == len(wanted) > 20
        # By place: the numbers of two keypoints change places where rounding decides which score is higher.
        order0, order1 = np.lexsort(found.keypoints0.T), np.lexsort(wanted.keypoints0.T)
        np.testing.assert_allclose(found.keypoints0[order0], wanted.keypoints0[order1], atol=1e-3)
        # Sums in another order; small random networks amplify rounding, and LoFTR's own convolutions round (winograd).
        np.testing.assert_allclose(found.keypoints1[order0], wanted.keypoints1[order1], atol=1e-2)
        np.testing.assert_allclose(found.confidence[order0], wanted.confidence[order1], atol=1e-2)


SETTINGS = {
    'loftr': {
        'of the paper': {},
        'optimal transport': {'match_type': 'optimal_transport'},
        'full': {'attention': 'full'},
    },
    'efficient_loftr': {'of the paper': {}, 'optimized': {'mode': 'optimized'}},
    'superpoint': {'small': {}, 'of the paper': {'downsample': 'pool', 'batch_norm': False}},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'settings'),
    [pytest.param(name, s, id=f'{name} {kind}') for name, kinds in SETTINGS.items() for kind, s in kinds.items()],
)
def test_files_give_the_tensors_of_the_network_at_any_size(name, settings, tmp_path):
    pytest.importorskip('onnx', reason='needs onnx: make test-slow installs it')
    runtime = pytest.importorskip('onnxruntime', reason='needs onnxruntime: make test-slow installs it')
    network, _ = load_network(name, save_tiny(name, tmp_path, **settings), False)
    parts = {part: kind(network) for part, kind in part_classes(name).items()}
    sessions = {
        part: runtime.InferenceSession(
            str(write_onnx(module, tmp_path / f'{part}.onnx')), providers=['CPUExecutionProvider']
        )
        for part, module in parts.items()
    }

    def compare(part, *tensors):
        wanted = parts[part](*tensors)
        found = sessions[part].run(None, {n: t.numpy() for n, t in zip(parts[part].input_names, tensors, strict=True)})
        for have, want in zip(found, wanted, strict=True):
            # Sums in another order.
            np.testing.assert_allclose(have, want, atol=2e-5 * float(want.abs().max()))
        return wanted

    # Smaller and larger than the example that was traced; longer than Efficient LoFTR's positions are trained for.
    with torch.no_grad():
        coarse = []
        for height, width in ((64, 96), (256, 320), (64, 1024)):
            image = torch.from_numpy(texture(height, width))[None, None] / 255
            mask = torch.ones(1, height, width, dtype=torch.bool)
            mask[:, height - 20 :] = False
            inputs = (image, mask)[: len(parts['extract'].input_names)]
            coarse.append((compare('extract', *inputs)[0], mask[:, ::8, ::8]))
        pairs = zip(coarse, coarse[1:] + coarse[:1], strict=True) if 'transform' in parts else ()
        for (coarse0, mask0), (coarse1, mask1) in pairs:
            compare('transform', coarse0, coarse1, mask0, mask1)


@pytest.mark.slow
@each_network
def test_export_writes_every_part(name, tmp_path, capsys):
    onnx = pytest.importorskip('onnx', reason='needs onnx: make test-slow installs it')
    arguments = ['--matcher', name, '--weights', save_tiny(name, tmp_path), '-o', str(tmp_path / 'out')]
    assert cli.main(['export', *arguments]) == 0
    assert capsys.readouterr().out.count('wrote') == len(NETWORKS[name].parts)
    for part in NETWORKS[name].parts:
        onnx.checker.check_model(str(tmp_path / 'out' / f'tiny_{name}_{part}.onnx'), full_check=True)


def test_export_of_a_matcher_without_a_network_is_refused(tmp_path, capsys):
    assert cli.main(['export', '--matcher', 'gcm', '-o', str(tmp_path)]) == 1
    assert 'networks are loftr, efficient_loftr' in capsys.readouterr().err


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_an_engine_that_is_not_installed_is_named_with_the_remedy(engine, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(MissingDependencyError, match=f'pip install onnx {engine}'):
        create_matcher(MatcherConfig(name='loftr', weights=save_tiny('loftr', tmp_path), device='cpu', engine=engine))


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_half_precision_with_an_engine_that_has_none_is_refused(engine):
    with pytest.raises(ConfigError, match=r'set matcher\.device: cpu and matcher\.precision: fp32'):
        engines.create_engine(engine, None, torch.device('cpu'), torch.bfloat16)
    with pytest.raises(ConfigError, match='computes on the CPU in fp32'):
        engines.create_engine(engine, None, torch.device('cuda'), torch.float32)


def test_every_engine_can_be_set_and_every_setting_is_an_engine():
    field = MatcherConfig.__dataclass_fields__['engine']
    assert set(field.metadata['choices']) == {'torch', *engines.ENGINES}
