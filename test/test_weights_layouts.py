"""Conversion of the names of transformers to those of the authors, without a change of values."""

import pytest

from loftr_ros.weights import CHECKPOINTS, load_into, load_state
from loftr_ros.weights.convert import build_network
from loftr_ros.weights.layouts import SUPERGLUE_HEADS, matcher_of, to_official

torch = pytest.importorskip('torch')


def test_an_official_layout_stays_as_it_is():
    state = {'backbone.conv1.weight': torch.zeros(1), 'encoder.identity.weight': torch.zeros(1)}
    assert to_official(state) == state


def test_superglue_attention_channels_are_interleaved_and_linear_maps_become_convolutions():
    channels = 2 * SUPERGLUE_HEADS
    # Channel h * 2 + d of transformers carries the number 10 h + d; the authors want it at d * heads + h.
    numbers = torch.tensor([10.0 * head + depth for head in range(SUPERGLUE_HEADS) for depth in range(2)])
    wanted = torch.tensor([10.0 * head + depth for depth in range(2) for head in range(SUPERGLUE_HEADS)])
    layer = 'gnn.layers.3.attention'
    state = to_official(
        {
            f'{layer}.self.key.weight': numbers[:, None].expand(channels, channels),
            f'{layer}.self.key.bias': numbers,
            f'{layer}.output.dense.weight': numbers[None].expand(channels, channels),
            f'{layer}.output.dense.bias': numbers,
            'keypoint_encoder.encoder.4.weight': torch.zeros(5, 7),
            'keypoint_encoder.encoder.1.batch_norm.weight': torch.zeros(5),
            'keypoint_detector.encoder.conv_blocks.0.conv_a.weight': torch.zeros(1),
        }
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == {
        'gnn.layers.3.attn.proj.1.weight': (channels, channels, 1),
        'gnn.layers.3.attn.proj.1.bias': (channels,),
        'gnn.layers.3.attn.merge.weight': (channels, channels, 1),
        'gnn.layers.3.attn.merge.bias': (channels,),
        'kenc.encoder.12.weight': (5, 7, 1),
        'kenc.encoder.4.weight': (5,),
    }
    assert torch.equal(state['gnn.layers.3.attn.proj.1.bias'], wanted)
    assert torch.equal(state['gnn.layers.3.attn.proj.1.weight'][:, 0, 0], wanted)
    assert torch.equal(state['gnn.layers.3.attn.merge.weight'][0, :, 0], wanted)
    assert torch.equal(state['gnn.layers.3.attn.merge.bias'], numbers)  # the output is not split into heads


@pytest.fixture(scope='module')
def transformers():
    return pytest.importorskip('transformers', reason='make test-slow installs transformers')


def randomized(module):
    """Return `module` in evaluation, every number random, so that no two tensors could be exchanged unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(0.05 * torch.randn(tensor.shape, generator=generator))
        for name, tensor in module.state_dict().items():
            if name.endswith(('running_var', 'norm.weight')):
                tensor.abs_().add_(0.5)
    return module.eval()


@pytest.mark.slow
def test_efficient_loftr_of_transformers_gives_the_same_features(transformers, tmp_path):
    from safetensors.torch import save_file

    theirs = randomized(transformers.EfficientLoFTRForKeypointMatching(transformers.EfficientLoFTRConfig()))
    save_file(theirs.state_dict(), tmp_path / 'model.safetensors')
    ours = build_network(CHECKPOINTS['eloftr_outdoor_hf'])
    state = load_state(tmp_path / 'model.safetensors')
    load_into(ours, state)
    assert len(state) == 447 and matcher_of(state) == 'efficient_loftr'
    pair = torch.rand(1, 2, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, *_ = theirs.efficientloftr(pair.expand(1, 2, 3, 64, 96)).feature_maps  # (1, 2, C, H / 8, W / 8)
        features = [ours.eval().extract(pair[:, which]).coarse for which in (0, 1)]
        found = torch.stack(ours.loftr_coarse(*features), dim=1).permute(0, 1, 4, 2, 3)
    # Sums run in another order: 1e-5 of the largest value. An exchanged tensor would change the features wholly.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert expected.std(dim=(3, 4)).mean() > 0.01 * expected.abs().max()  # they depend on the place in the image


@pytest.mark.slow
def test_the_file_of_superglue_in_transformers_fits_the_official_names(transformers):
    config = transformers.SuperGlueConfig()
    state = to_official(transformers.SuperGlueForKeypointMatching(config).state_dict())
    assert len(state) == 339 and matcher_of(state) == 'superglue'
    assert state['kenc.encoder.0.weight'].shape == (32, 3, 1)
    assert state['gnn.layers.17.mlp.3.weight'].shape == (256, 512, 1)
    assert state['final_proj.weight'].shape == (256, 256, 1)


@pytest.mark.slow
def test_the_file_of_superpoint_in_transformers_gets_the_official_names(transformers):
    config = transformers.SuperPointConfig()
    state = to_official(transformers.SuperPointForKeypointDetection(config).state_dict())
    layers = [f'conv{number}{letter}' for number in (1, 2, 3, 4, 'P', 'D') for letter in 'ab']
    assert state.keys() == {f'{layer}.{kind}' for layer in layers for kind in ('weight', 'bias')}
    assert state['convPb.weight'].shape[0] == 65
