"""Winograd convolutions compared with the definition."""

import copy

import pytest

torch = pytest.importorskip('torch')

from loftr_ros.networks.winograd import WinogradConv3x3, replace_convolutions  # noqa: E402


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Tensors are tiny here: a second thread would only wait, for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('height, width', [(8, 12), (5, 7), (1, 1), (34, 18)])
def test_a_winograd_convolution_equals_the_definition(height, width, bias):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(64, 24, 3, padding=1, bias=bias).requires_grad_(False)
    x = torch.randn(2, 64, height, width)
    wanted = conv(x)
    found = WinogradConv3x3(conv)(x)
    assert found.shape == wanted.shape
    # The transforms multiply by up to 8 x 8 before sums cancel.
    assert (found - wanted).abs().max() < 3e-5 * wanted.abs().max()


def test_in_double_precision_only_rounding_differs():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(64, 8, 3, padding=1).double().requires_grad_(False)
    x = torch.randn(1, 64, 9, 10, dtype=torch.float64)
    torch.testing.assert_close(WinogradConv3x3(conv)(x), conv(x), atol=1e-12, rtol=0)


def test_large_maps_are_computed_in_several_pieces(monkeypatch):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(64, 8, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 64, 24, 16)
    whole = WinogradConv3x3(conv)(x)
    monkeypatch.setattr('loftr_ros.networks.winograd.WORKSPACE', 1)  # one row of tiles at a time
    # Products of another shape may add in another order.
    torch.testing.assert_close(WinogradConv3x3(conv)(x), whole, atol=1e-5, rtol=0)


def test_only_supported_convolutions_are_replaced():
    conv = torch.nn.Conv2d
    network = torch.nn.Sequential(
        conv(64, 64, 3, padding=1),
        conv(64, 64, 3, stride=2, padding=1),
        torch.nn.Sequential(conv(64, 64, 1), conv(64, 64, 3, padding=1, groups=64), conv(64, 64, 3, padding=1)),
        conv(64, 8, 3, padding=1),
        conv(8, 8, 3, padding=1),  # too narrow to gain
    ).requires_grad_(False)
    x = torch.randn(1, 64, 16, 16)
    replaced = copy.deepcopy(network)
    replace_convolutions(replaced)
    kinds = [type(m).__name__ for m in replaced.modules() if not isinstance(m, torch.nn.Sequential)]
    assert kinds == ['WinogradConv3x3', 'Conv2d', 'Conv2d', 'Conv2d', 'WinogradConv3x3', 'WinogradConv3x3', 'Conv2d']
    wanted = network(x)
    assert (replaced(x) - wanted).abs().max() < 1e-4 * wanted.abs().max()
