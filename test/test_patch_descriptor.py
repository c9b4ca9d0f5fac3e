"""Learned patch descriptors: R2D2's network, its student, and both as F_0 of gcm."""

import dataclasses

import numpy as np
import pytest
import torch
from test_matchers import texture

from loftr_ros.config import GcmConfig, MatcherConfig
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.matchers import create_matcher, match_images
from loftr_ros.networks.patch_descriptor import PatchDescriptor
from loftr_ros.weights import CHECKPOINTS, Checkpoint, load_into, load_state, save
from loftr_ros.weights.convert import build_network

SMALL = {'widths': (4, 8, 8), 'convolutions': 1, 'descriptor': 16, 'colours': 1}


def network(**settings):
    """Return a random network whose batch norms have the statistics of a texture."""
    torch.manual_seed(0)
    made = PatchDescriptor(**{**SMALL, **settings})
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    made.train().dense(image_tensor(96, 96))
    return made.eval()


def image_tensor(height, width):
    return torch.from_numpy(texture(height, width))[None, None].float() / 255


def save_small(folder, **settings):
    made = network(**settings)
    path = folder / 'small.safetensors'
    save(path, made.state_dict(), Checkpoint('small', 'patch_descriptor', {**SMALL, **settings}))
    return str(path)


def reach(made):
    """Return how many pixels around the middle change the descriptor there."""
    size = 121
    image = torch.rand(1, 1, size, size, requires_grad=True)
    made.dense(image)[0, 0, size // 2, size // 2].backward()
    rows, columns = image.grad[0, 0].nonzero(as_tuple=True)
    assert rows.min() + rows.max() == columns.min() + columns.max() == size - 1  # as far on both sides
    return size // 2 - int(rows.min())


@pytest.mark.parametrize(('convolutions', 'radius'), [(2, 25), (1, 18)])
def test_a_descriptor_looks_as_far_as_that_of_the_paper(convolutions, radius):
    """Teacher: 3x3 convolutions with dilations 1 1 1 2 2 4, 2x2 with 4 8 16, so 11 + 14. Student: 1 1 2, so 4 + 14."""
    made = network(convolutions=convolutions)
    assert made.radius == radius
    assert reach(made) == radius


def test_the_strips_do_not_show():
    made = network()
    image = image_tensor(250, 400)  # strips of 81 rows
    with torch.inference_mode():
        strips, whole = made(image), made.dense(image)[0].permute(1, 2, 0)
    assert strips.dtype == torch.float16 and strips.shape == (250, 400, 16)
    assert (strips.float() - whole).abs().max() < 1e-3  # float16
    assert (strips.float().norm(dim=-1) - 1).abs().max() < 2e-3


def test_rows_are_as_long_as_the_network_says():
    image = image_tensor(64, 64)
    with torch.inference_mode():
        assert (network(length=0.7)(image).float().norm(dim=-1) - 0.7).abs().max() < 2e-3
        assert (network(length=0.7).dense(image).norm(dim=1) - 1).abs().max() < 1e-5  # for losses and teachers


def test_folded_batch_norms_change_nothing():
    made, image = network(), image_tensor(64, 64)
    with torch.inference_mode():
        before = made.dense(image)
        after = made.prepare_for_inference().dense(image)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in made.modules())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_a_shifted_image_has_shifted_descriptors():
    made, image = network(), image_tensor(160, 160)
    with torch.inference_mode():
        here, there = made.dense(image), made.dense(image[:, :, 5:, 3:])
    inner = slice(60, 90)
    shifted = slice(65, 95), slice(63, 93)
    torch.testing.assert_close(there[0, :, inner, inner], here[0, :, shifted[0], shifted[1]], atol=1e-5, rtol=0)


def published_state():
    """Return tensors with the names and shapes of R2D2's published files, as `torch.load` gives them."""
    state = {}
    channels = 3
    for number, width in zip((0, 3, 6, 9, 12, 15, 18, 20, 22), (32, 32, 64, 64, 128, 128, 128, 128, 128), strict=True):
        kernel = 3 if number < 18 else 2
        state[f'ops.{number}.weight'] = torch.randn(width, channels, kernel, kernel) / 10
        state[f'ops.{number}.bias'] = torch.zeros(width)
        if number < 22:
            state[f'ops.{number + 1}.running_mean'] = torch.zeros(width)
            state[f'ops.{number + 1}.running_var'] = torch.ones(width)
            state[f'ops.{number + 1}.num_batches_tracked'] = torch.tensor(7)
        channels = width
    for head, outputs in (('clf', 2), ('sal', 1)):
        state[f'{head}.weight'], state[f'{head}.bias'] = torch.zeros(outputs, 128, 1, 1), torch.zeros(outputs)
    return {'net': 'Quad_L2Net_ConfCFS()', 'state_dict': {f'module.{name}': t for name, t in state.items()}}


def test_the_published_layout_of_r2d2_loads_strictly_without_its_heads(tmp_path):
    document = published_state()
    torch.save({'state_dict': document['state_dict']}, tmp_path / 'r2d2.pt')
    torch.save(document, tmp_path / 'with_name.pt')
    for file in ('r2d2.pt', 'with_name.pt'):
        state = load_state(tmp_path / file)
        made = build_network(CHECKPOINTS['r2d2_wasf'])
        load_into(made, state)
        assert len(state) == 42
        assert torch.equal(made.ops[15].weight, document['state_dict']['module.ops.15.weight'])


def test_r2d2_is_used_only_when_its_licence_is_accepted(tmp_path):
    torch.save(published_state(), tmp_path / 'r2d2.pt')
    setting = f'r2d2_wasf={tmp_path / "r2d2.pt"}'
    config = MatcherConfig(name='gcm', device='cpu', gcm=GcmConfig(descriptor=setting))
    with pytest.raises(ConfigError, match=r'CC BY-NC-SA.*accept_license'):
        create_matcher(config)
    assert create_matcher(dataclasses.replace(config, accept_license=True)).name == 'gcm'


def test_gcm_with_a_learned_descriptor_finds_a_shift(tmp_path):
    """Random convolutions describe a texture well enough to find it again, 12 px to the left.

    Places that image 1 does not show have no right match.
    """
    config = MatcherConfig(name='gcm', device='cpu', gcm=GcmConfig(descriptor=save_small(tmp_path), align=False))
    image = texture(160, 240)
    matches = match_images(create_matcher(config), image[:, :-12], image[:, 12:])
    moved = matches.keypoints1 - matches.keypoints0
    assert len(matches) > 100
    assert np.mean(np.abs(moved - (-12, 0)).max(axis=1) < 0.5) > 0.85


@pytest.mark.parametrize('name', ['gradiant', 'patch'])
def test_an_unknown_descriptor_is_answered_with_the_known_ones(name):
    with pytest.raises(ConfigError, match=f'matcher.gcm.descriptor is {name!r}; .*gradient'):
        create_matcher(MatcherConfig(name='gcm', device='cpu', gcm=GcmConfig(descriptor=name)))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r'there is no file nowhere\.safetensors'):
        create_matcher(MatcherConfig(name='gcm', device='cpu', gcm=GcmConfig(descriptor='nowhere.safetensors')))
