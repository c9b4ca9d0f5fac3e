"""SuperGlue and its optimal transport on keypoints whose partners are known."""

import pytest

torch = pytest.importorskip('torch')

from loftr_ros.networks.keypoints import Keypoints  # noqa: E402
from loftr_ros.networks.sinkhorn import (  # noqa: E402
    ABSENT,
    log_optimal_transport,
    masked_log_optimal_transport,
)
from loftr_ros.networks.superglue import SuperGlue  # noqa: E402

SMALL = {'descriptor': 16, 'encoder': (8, 16), 'layers': ('self', 'cross') * 2, 'sinkhorn_iterations': 20}
SIZE = (48, 64)


@pytest.fixture(autouse=True)
def no_gradient():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def network_that_compares_descriptors(**settings):
    """Random weights whose layers change little and whose final projection keeps and enlarges the descriptors."""
    network = SuperGlue(**{**SMALL, **settings}).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    for layer in network.gnn.layers:
        layer.mlp[-1].weight *= 0.05
    network.kenc.encoder[-1].weight *= 0.05
    channels = len(network.final_proj.bias)
    network.final_proj.weight.copy_(8 * torch.eye(channels)[..., None])
    return network


def keypoints(count, batch=1, channels=16, valid=None):
    points = torch.rand(batch, count, 2) * torch.tensor([SIZE[1], SIZE[0]])
    descriptors = torch.nn.functional.normalize(torch.randn(batch, count, channels), dim=2)
    return Keypoints(points, torch.rand(batch, count), descriptors, valid)


def chosen(of, index):
    return Keypoints(*(field[:, index] for field in of[:3]))


def match(network, keypoints0, keypoints1):
    return network.match(keypoints0, keypoints1, SIZE, SIZE)


def test_the_paper_s_size_has_the_339_tensors_of_the_published_file():
    state = SuperGlue().state_dict()
    assert len(state) == 339
    assert state['kenc.encoder.0.weight'].shape == (32, 3, 1)
    assert state['kenc.encoder.12.weight'].shape == (256, 256, 1)
    assert state['gnn.layers.17.attn.proj.2.weight'].shape == (256, 256, 1)
    assert state['gnn.layers.0.mlp.0.weight'].shape == (512, 512, 1)
    assert state['gnn.layers.0.mlp.1.num_batches_tracked'].shape == ()
    assert state['final_proj.weight'].shape == (256, 256, 1)
    assert state['bin_score'].shape == ()


def test_keypoints_in_another_order_find_their_partners_and_the_others_say_that_they_have_none():
    network = network_that_compares_descriptors()
    first = keypoints(12)
    second = chosen(first, torch.tensor([7, 3, 11, 0]))
    found = match(network, first, second)
    assert found.partner1.tolist() == [[7, 3, 11, 0]]
    assert found.partner0[0, [7, 3, 11, 0]].tolist() == [0, 1, 2, 3]
    without = [number for number in range(12) if number not in (7, 3, 11, 0)]
    assert (found.partner0[0, without] == -1).all() and not found.confidence0[0, without].any()
    assert torch.equal(found.confidence1[0], found.confidence0[0, [7, 3, 11, 0]])
    assert (found.confidence1 > 0.2).all() and (found.confidence1 <= 1).all()


@pytest.mark.parametrize(('count0', 'count1'), [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_keypoints_has_no_matches(count0, count1):
    found = match(network_that_compares_descriptors(), keypoints(count0), keypoints(count1))
    assert found.partner0.tolist() == [[-1] * count0] and found.partner1.tolist() == [[-1] * count1]


def test_one_keypoint_finds_itself():
    network = network_that_compares_descriptors()
    first = keypoints(1)
    assert match(network, first, first).partner0.tolist() == [[0]]


def test_padding_changes_no_match_and_matches_nothing():
    network = network_that_compares_descriptors()
    first, second = keypoints(9), keypoints(9)
    order = torch.tensor([4, 1, 6])
    second = Keypoints(*(torch.cat([a[:, order], b], dim=1) for a, b in zip(first[:3], second[:3], strict=True)))
    wanted = network.log_assignment(first, second, SIZE, SIZE)
    padded = []
    for plain, count in ((first, 9), (second, 12)):
        # What padding holds must not matter: copies of true keypoints would match.
        fields = (torch.cat([field, field[:, :5]], dim=1) for field in plain[:3])
        padded.append(Keypoints(*fields, (torch.arange(count + 5) < count)[None]))
    have = network.log_assignment(*padded, SIZE, SIZE)
    inner = torch.cat([have[:, :9], have[:, -1:]], dim=1)
    inner = torch.cat([inner[..., :12], inner[..., -1:]], dim=2)
    torch.testing.assert_close(inner, wanted, atol=1e-4, rtol=1e-4)
    plain, found = match(network, first, second), match(network, *padded)
    assert torch.equal(found.partner0[:, :9], plain.partner0) and (found.partner0[:, 9:] == -1).all()
    assert torch.equal(found.partner1[:, :12], plain.partner1) and (found.partner1[:, 12:] == -1).all()
    assert found.partner1[0, :3].tolist() == order.tolist()


def test_each_pair_of_a_batch_is_matched_as_alone_also_one_without_keypoints():
    network = network_that_compares_descriptors()
    valid = torch.tensor([[True] * 6, [True] * 3 + [False] * 3, [False] * 6])
    first = keypoints(6, batch=3, valid=valid)
    second = first._replace(points=first.points + 1)
    together = match(network, first, second)
    assert together.partner0.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, -1, -1, -1], [-1] * 6]
    for number, count in ((0, 6), (1, 3)):
        alone = (Keypoints(*(field[number : number + 1, :count] for field in side[:3])) for side in (first, second))
        found = match(network, *alone)
        torch.testing.assert_close(found.confidence0[0], together.confidence0[number, :count], atol=1e-4, rtol=1e-4)


def test_folded_batch_norms_change_no_assignment():
    network = network_that_compares_descriptors()
    first, second = keypoints(20), keypoints(15)
    before = network.log_assignment(first, second, SIZE, SIZE)
    after = network.prepare_for_inference().log_assignment(first, second, SIZE, SIZE)
    assert len(network.state_dict()) < len(SuperGlue(**SMALL).state_dict())
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_padding_has_no_part_in_the_statistics_of_the_batch_norms():
    network = SuperGlue(**SMALL).train()
    valid = torch.arange(8)[None] < 5
    first = keypoints(8, valid=valid)
    spoiled = first._replace(points=torch.where(valid[..., None], first.points, 1e6))
    results = [network.kenc(side, SIZE)[:, :5] for side in (first, spoiled)]
    assert torch.equal(*results)


@pytest.mark.parametrize('iterations', [3, 20, 100])
@pytest.mark.parametrize('strength', [1, 5, 40])
def test_optimal_transport_by_products_equals_that_in_log_space(strength, iterations):
    scores, bin_score = strength * torch.randn(2, 30, 40), torch.tensor(1.3)
    wanted = log_optimal_transport(scores.double(), bin_score.double(), iterations)
    have = masked_log_optimal_transport(scores, bin_score, iterations)
    likely = wanted > -20  # P below 1e-9 is nothing to anybody
    torch.testing.assert_close(have.double()[likely], wanted[likely], atol=1e-4, rtol=1e-4)


def test_optimal_transport_leaves_padding_out():
    scores, bin_score = 3 * torch.randn(1, 7, 9), torch.tensor(0.5)
    valid0, valid1 = torch.arange(7)[None] < 5, torch.arange(9)[None] < 4
    wanted = log_optimal_transport(scores[:, :5, :4], bin_score, 50)
    for gradient in (False, True):  # products of matrices, log space
        with torch.set_grad_enabled(gradient):
            have = masked_log_optimal_transport(scores, bin_score, 50, valid0, valid1)
        rows, columns = torch.tensor([0, 1, 2, 3, 4, 7]), torch.tensor([0, 1, 2, 3, 9])
        torch.testing.assert_close(have[:, rows][..., columns], wanted, atol=1e-4, rtol=1e-4)
        assert have.isfinite().all()
        assert (have[:, 5:7] < 0.5 * ABSENT).all() and (have[:, :, 4:9] < 0.5 * ABSENT).all()


def test_in_half_precision_the_same_partners_are_found():
    network = network_that_compares_descriptors().prepare_for_inference()
    first = keypoints(40)
    second = chosen(first, torch.randperm(40)[:30])
    full = match(network, first, second)
    half = match(network.prepare_for_inference(dtype=torch.bfloat16), first, second)
    assert torch.equal(half.partner1, full.partner1) and (full.partner1 >= 0).all()
    assert half.confidence1.dtype == torch.float32
