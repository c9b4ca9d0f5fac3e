"""Backbones of gcm: torchvision's layouts, our own networks, timm, ONNX files, and what is refused."""

import cv2
import numpy as np
import pytest
import torch
from data import shared_data
from test_gcm import warped_pair

from loftr_ros.config import GcmConfig, MatcherConfig
from loftr_ros.errors import ConfigError, InputError, MissingDependencyError
from loftr_ros.evaluation.metrics import transfer_errors_px
from loftr_ros.matchers import create_matcher, match_images
from loftr_ros.matchers.gcm_backbone import create_backbone
from loftr_ros.networks.backbones import fit, normalise
from loftr_ros.networks.imagenet import ARCHITECTURES

# Tensors and parameters of torchvision's networks without their classifiers (published totals minus the last layers).
SIZES = {
    'resnet18': (120, 11_689_512 - 513_000),
    'resnet50': (318, 25_557_032 - 2_049_000),
    'vgg19': (32, 143_667_240 - 123_642_856),
    'squeezenet1_1': (50, 1_235_496 - 513_000),
    'mobilenet_v3_large': (308, 5_483_032 - 2_511_080),
    'mobilenet_v3_small': (240, 2_542_856 - 1_615_848),
}


def backbone(value, **settings):
    return create_backbone(MatcherConfig(name='gcm', gcm=GcmConfig(backbone=value, **settings)), torch.device('cpu'))


def random_weights(name, folder):
    torch.manual_seed(0)
    path = folder / f'{name}.pth'
    network = ARCHITECTURES[name]()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save({**network.state_dict(), f'{network.head}weight': torch.zeros(3, 3)}, path)
    return path


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_networks_have_the_published_sizes(name):
    network = ARCHITECTURES[name]()
    assert (len(network.state_dict()), sum(p.numel() for p in network.parameters())) == SIZES[name]


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_maps_have_the_size_of_their_stride(name, tmp_path):
    made = backbone(f'{name}={random_weights(name, tmp_path)}')
    assert made.colour and made.strides == (2, 4, 8, 16)
    maps = made(torch.rand(1, 3, 64, 96), None)
    assert [tuple(m.shape[:2]) for m in maps] == [(32, 48), (16, 24), (8, 12), (4, 6)]


@pytest.mark.slow
@pytest.mark.parametrize('name', ARCHITECTURES)
def test_maps_are_those_of_torchvision(name):
    try:
        from torchvision import models
    except (ImportError, RuntimeError):  # RuntimeError: its wheel is for another build of torch
        pytest.skip('needs a torchvision that fits torch')
    torch.manual_seed(0)
    reference = getattr(models, name)().eval()
    own = ARCHITECTURES[name]().eval()
    state = {key: tensor for key, tensor in reference.state_dict().items() if not key.startswith(own.head)}
    own.load_state_dict(state, strict=True)
    image = torch.randn(1, 3, 96, 128)
    chain = own.chain() if name.startswith('resnet') else reference.features
    if name.startswith('resnet'):
        chain = [getattr(reference, part) for part in (
            'conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4',
        )]  # fmt: skip
    with torch.no_grad():
        x, outputs = image, []
        for layer in chain:
            x = layer(x)
            outputs.append(x.clone())  # ReLUs there work in place
        for stride, found in zip(own.taps, own(image, list(own.taps)), strict=True):
            torch.testing.assert_close(found, outputs[own.taps[stride]])


def test_colours_are_normalised_as_for_imagenet():
    grey = torch.full((1, 3, 2, 2), 0.5)
    wanted = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    torch.testing.assert_close(normalise(grey)[0, :, 0, 0], torch.tensor(wanted))


def test_a_map_with_a_row_and_a_column_too_few_repeats_its_last_ones():
    maps = fit(torch.arange(6.0).view(1, 1, 2, 3), torch.zeros(1, 3, 24, 32), 8)
    assert maps[:, :, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5]]


def test_real_squeezenet_sees_red_as_red(tmp_path):
    """The matcher hands a colour image over red first: with red and blue exchanged the features are others."""
    weights = shared_data('../weights/squeezenet1_1_imagenet.safetensors')
    gcm = GcmConfig(backbone=f'squeezenet1_1={weights}')
    config = MatcherConfig(name='gcm', device='cpu', subpixel='none', rotation_search='off', gcm=gcm)
    matcher = create_matcher(config)
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32, 2] = 255  # red left of black
    rgb = torch.zeros(1, 3, 64, 64)
    rgb[:, 0, :, :32] = 1
    wanted = torch.nn.functional.normalize(matcher.backbone(rgb, None)[-1].flatten(0, 1), dim=-1)
    found = matcher.extract(image).features.coarsest.features.float()
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)  # float16


def test_real_squeezenet_and_our_backbone_find_a_turn():
    weights = shared_data('../weights/squeezenet1_1_imagenet.safetensors')
    homography = np.vstack([cv2.getRotationMatrix2D((160, 120), 5, 1.05), [0, 0, 1]])
    image0, image1 = warped_pair(homography)
    for value in (f'squeezenet1_1={weights}', 'efficient_loftr', 'loftr'):
        config = MatcherConfig(name='gcm', device='cpu', subpixel='none', gcm=GcmConfig(backbone=value))
        matches = match_images(create_matcher(config), image0, image1)
        errors = transfer_errors_px(homography, matches.keypoints0, matches.keypoints1)
        assert len(matches) > 500 and np.mean(errors < 1) > 0.9, value


def test_dfm_finds_a_shift_with_vgg_19_and_no_patch_descriptor(tmp_path):
    """The baseline of the paper, with ratios at every level. Random weights suffice for a shift by whole cells."""
    config = MatcherConfig(
        name='gcm', device='cpu', subpixel='none', rotation_search='off', match_threshold=0.0, max_matches=0,
        gcm=GcmConfig(
            backbone=f'vgg19={random_weights("vgg19", tmp_path)}', descriptor='none', refinement='paper',
            ratios='0.99,1,1,1,0.95', align=False,
        ),
    )  # fmt: skip
    matcher = create_matcher(config)
    assert matcher.backbone.strides == (1, 2, 4, 8, 16)
    image0, image1 = warped_pair(np.array([[1, 0, 32], [0, 1, 0], [0, 0, 1.0]]), 96, 160)
    matches = match_images(matcher, image0, image1)
    errors = np.linalg.norm(matches.keypoints1 - matches.keypoints0 - [32, 0], axis=1)
    print(len(matches), np.mean(errors < 1))
    assert len(matches) > 100 and np.mean(errors < 1) > 0.9
    assert matches.confidence.min() >= 0.05 - 1e-3  # the last ratio, 0.95


def write_onnx(path, channels, **options):
    """Write a network with outputs `half` (the mean over 2 x 2) and `sixth` (over 6 x 6) that are easy to know."""
    pytest.importorskip('onnx')

    class Means(torch.nn.Module):
        def forward(self, image):
            return torch.nn.functional.avg_pool2d(image, 2), torch.nn.functional.avg_pool2d(image, 6)

    sides = {name: {2: f'{name}_h', 3: f'{name}_w'} for name in ('image', 'half', 'sixth')}
    torch.onnx.export(
        Means(), torch.zeros(1, channels, 48, 48), str(path), dynamo=False, input_names=['image'],
        output_names=['half', 'sixth'], dynamic_axes=sides if options.get('dynamic', True) else None,
    )  # fmt: skip
    return path


@pytest.mark.slow
def test_an_onnx_file_gives_its_named_outputs_at_their_strides(tmp_path):
    pytest.importorskip('onnxruntime')
    path = write_onnx(tmp_path / 'means.onnx', 1)
    made = backbone(f'onnx:{path}')
    assert made.strides == (2, 6) and not made.colour
    image = torch.rand(1, 1, 48, 96)
    half, sixth = made(image, None)
    torch.testing.assert_close(half[:, :, 0], torch.nn.functional.avg_pool2d(image, 2)[0, 0])
    torch.testing.assert_close(sixth[:, :, 0], torch.nn.functional.avg_pool2d(image, 6)[0, 0])
    assert backbone(f'onnx:{path}', levels='half:2').strides == (2,)
    with pytest.raises(ConfigError, match='no map half:4; it has half:2, sixth:6'):
        backbone(f'onnx:{path}', levels='half:4')
    colour = backbone(f'onnx:{write_onnx(tmp_path / "colour.onnx", 3)}')
    image = torch.rand(1, 3, 48, 96)
    torch.testing.assert_close(
        colour(image, None)[0].permute(2, 0, 1), torch.nn.functional.avg_pool2d(normalise(image), 2)[0]
    )
    with pytest.raises(InputError, match='export it with dynamic height and width'):
        backbone(f'onnx:{write_onnx(tmp_path / "fixed.onnx", 1, dynamic=False)}')


@pytest.mark.slow
def test_a_model_of_timm_gives_the_maps_of_the_same_weights(tmp_path):
    try:
        import timm
    except (ImportError, RuntimeError):
        pytest.skip('needs timm and a torchvision that fits torch')
    torch.manual_seed(0)
    path = tmp_path / 'resnet18.pth'
    torch.save(timm.create_model('resnet18', pretrained=False).state_dict(), path)
    image = torch.rand(1, 3, 64, 96)
    theirs, ours = backbone(f'timm:resnet18={path}'), backbone(f'resnet18={path}')
    assert theirs.strides == ours.strides == (2, 4, 8, 16)
    for found, wanted in zip(theirs(image, None), ours(image, None), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('package, value', [('timm', 'timm:resnet18'), ('onnxruntime', 'onnx:net.onnx')])
def test_a_missing_package_is_named(package, value, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, package, None)
    with pytest.raises(MissingDependencyError, match=f'pip install {package}'):
        backbone(value)


@pytest.mark.parametrize('value, settings, error, message', [
    ('resnet19', {}, ConfigError, r"'resnet19'; did you mean resnet18\?"),
    ('resnet18', {}, ConfigError, 'resnet18 needs weights: resnet18=FILE'),
    ('resnet18=nowhere.pth', {}, InputError, 'no file nowhere.pth'),
    ('superpoint_small', {}, ConfigError, 'has no backbone; use weights of efficient_loftr or loftr'),
    ('pool', {'levels': '2,6,8'}, ConfigError, 'strides 1, 2, 6, 8 .*each a multiple of the one before'),
    ('pool', {'levels': '2,four'}, ConfigError, "'four', needed is a stride"),
    ('pool', {'descriptor': 'none'}, ConfigError, 'averages the patch descriptor'),
    ('efficient_loftr', {'levels': '2,16'}, ConfigError, 'has maps of strides 2, 4, 8, .* wants 16'),
])  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_remedy(value, settings, error, message):
    with pytest.raises(error, match=message):
        backbone(value, **settings)


@pytest.mark.parametrize('ratios', ['0.9', '0.9,0.9,0.9,1.1', 'a,b,c,d'])
def test_ratios_that_do_not_fit_the_levels_are_refused(ratios):
    with pytest.raises(ConfigError, match='needed are 4 numbers above 0 and up to 1'):
        create_matcher(MatcherConfig(name='gcm', gcm=GcmConfig(refinement='paper', ratios=ratios)))
