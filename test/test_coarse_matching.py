"""Streamed coarse matching against the plain dense formulas, on random features and on data with known matches."""

import pytest

torch = pytest.importorskip('torch')

from loftr_ros.networks import coarse_cells as cells  # noqa: E402
from loftr_ros.networks import coarse_matching as cm  # noqa: E402
from loftr_ros.networks.log_sum_exp import ColumnSums, are_small, exponentiate_rows_  # noqa: E402
from loftr_ros.networks.sinkhorn import log_optimal_transport  # noqa: E402


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Tensors are tiny here: a second thread would only wait, for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def features(batch=2, rows=37, columns=29, channels=16, true_pairs=20, seed=0):
    """Random features of which the first `true_pairs` of image 0 stand, permuted and noisy, in image 1 too."""
    generator = torch.Generator().manual_seed(seed)
    f0 = 2 * torch.randn(batch, rows, channels, generator=generator)
    f1 = 2 * torch.randn(batch, columns, channels, generator=generator)
    order = torch.randperm(columns, generator=generator)[:true_pairs]
    f1[:, order] = f0[:, :true_pairs] + 0.5 * torch.randn(batch, true_pairs, channels, generator=generator)
    return f0, f1, order


def dense_matches(p, threshold, valid0=None, valid1=None, eligible0=None, eligible1=None):
    """All (batch, i, j, P) with P above the threshold and the maximum of its row and its column, in plain form."""
    mask = (p > threshold) & (p == p.amax(2, keepdim=True)) & (p == p.amax(1, keepdim=True))
    for cells0 in (valid0, eligible0):
        mask = mask if cells0 is None else mask & cells0[:, :, None]
    for cells1 in (valid1, eligible1):
        mask = mask if cells1 is None else mask & cells1[:, None, :]
    batch_index, i, j = mask.nonzero().unbind(1)
    return batch_index, i, j, p[batch_index, i, j]


def dense_scores(f0, f1, temperature, valid0=None, valid1=None):
    scores = torch.einsum('blc,bsc->bls', f0, f1) / f0.shape[-1] / temperature
    if valid0 is not None:
        scores = scores.masked_fill(~(valid0[:, :, None] & valid1[:, None, :]), -1e9)
    return scores


def random_masks(seed=1, batch=2, rows=37, columns=29):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, rows, generator=generator) > 0.2, torch.rand(batch, columns, generator=generator) > 0.2


def assert_same(found, wanted):
    for have, want in zip(found[:3], wanted[:3], strict=True):
        assert have.tolist() == want.tolist()
    # Differences of float32 log-sums of size 10 or so.
    torch.testing.assert_close(found.confidence, wanted[3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('block_elements', [2 * 29 * 4, 2 * 29 * 15, 10**6])
@pytest.mark.parametrize('threshold', [0.2, 0.01, 0.0])
@pytest.mark.parametrize('masked', [False, True])
def test_streamed_dual_softmax_equals_the_dense_formula(block_elements, threshold, masked):
    f0, f1, _ = features()
    valid0, valid1 = random_masks() if masked else (None, None)
    eligible0, eligible1 = random_masks(seed=2)
    scores = dense_scores(f0, f1, 0.3, valid0, valid1)
    wanted = dense_matches(scores.softmax(1) * scores.softmax(2), threshold, valid0, valid1, eligible0, eligible1)
    similarity = cm.Similarity(f0, f1, 0.3, valid0, valid1, block_elements)
    found = cm.match_dual_softmax(similarity, threshold, eligible0, eligible1)
    assert len(wanted[0]) > 10
    assert_same(found, wanted)


@pytest.mark.parametrize('block_elements', [2 * 29 * 4, 2 * 29 * 15, 10**6])
@pytest.mark.parametrize('prefilter', [False, True])
@pytest.mark.parametrize('masked', [False, True])
def test_streamed_optimal_transport_equals_the_dense_formula(block_elements, prefilter, masked):
    f0, f1, _ = features()
    valid0, valid1 = random_masks() if masked else (None, None)
    bin_score = torch.tensor(0.0)
    p = log_optimal_transport(dense_scores(f0, f1, 1.0, valid0, valid1), bin_score, 5).exp()
    inner = p[:, :-1, :-1].clone()
    if prefilter:
        inner[p.argmax(2)[:, :-1] == p.shape[2] - 1] = 0
        inner.transpose(1, 2)[p.argmax(1)[:, :-1] == p.shape[1] - 1] = 0
    wanted = dense_matches(inner, 0.05, valid0, valid1)
    similarity = cm.Similarity(f0, f1, 1.0, valid0, valid1, block_elements)
    found = cm.match_optimal_transport(similarity, bin_score, 5, 0.05, dustbin_prefilter=prefilter)
    assert len(wanted[0]) > 5
    assert_same(found, wanted)


def test_the_dustbin_prefilter_removes_matches_that_prefer_the_dustbin():
    f0, f1, _ = features()
    similarity = cm.Similarity(f0, f1)
    counts = [
        len(cm.match_optimal_transport(similarity, torch.tensor(1.2), 5, 0.05, dustbin_prefilter=p).cell0)
        for p in (False, True)
    ]
    assert counts[1] < counts[0]


def test_raw_similarity_equals_the_dense_formula():
    f0, f1, _ = features()
    wanted = dense_matches(dense_scores(f0, f1, 1.0), 1.0)
    found = cm.match_raw_similarity(cm.Similarity(f0, f1, block_elements=100), 1.0)
    assert len(wanted[0]) > 10
    assert_same(found, wanted)


def test_permuted_features_are_found_again():
    f0, f1, order = features(batch=1)
    found = cm.match_dual_softmax(cm.Similarity(f0, f1, 0.05), 0.5)
    assert found.cell0.tolist()[:20] == list(range(20))
    assert found.cell1.tolist()[:20] == order.tolist()


@pytest.mark.parametrize('threshold', [0.0, 0.1])
def test_equal_features_give_one_match_of_each_cell_at_most(threshold):
    f = torch.ones(1, 6, 4)
    found = cm.match_dual_softmax(cm.Similarity(f[:, :2], f[:, :3], 0.1, block_elements=1), threshold)
    assert found.cell0.tolist() == [0] and found.cell1.tolist() == [0]
    assert found.confidence.item() == pytest.approx(1 / 6)


def test_huge_similarities_stay_finite():
    f0, f1, _ = features(batch=1)
    found = cm.match_dual_softmax(cm.Similarity(100 * f0, f1, 0.1), 0.0)
    assert len(found.cell0) > 0 and torch.isfinite(found.confidence).all()


@pytest.mark.parametrize('threshold', [0.0, 0.1])
def test_a_wholly_padded_image_gives_no_match(threshold):
    f0, f1, _ = features()
    valid0, valid1 = torch.ones(2, 37, dtype=torch.bool), torch.ones(2, 29, dtype=torch.bool)
    valid1[1] = False
    found = cm.match_dual_softmax(cm.Similarity(f0, f1, 0.3, valid0, valid1), threshold)
    assert len(found.cell0) > 0 and set(found.batch_index.tolist()) == {0}


def test_half_precision_features_are_compared_in_float32():
    f0, f1, _ = features()
    assert torch.equal(
        cm.match_dual_softmax(cm.Similarity(f0.half(), f1.half(), 0.3), 0.1).confidence,
        cm.match_dual_softmax(cm.Similarity(f0.half().float(), f1.half().float(), 0.3), 0.1).confidence,
    )


def test_the_dense_log_confidence_carries_a_gradient_and_matches_the_stream():
    f0, f1, _ = features()
    f0.requires_grad_()
    log_p = cm.log_dual_softmax(cm.Similarity(f0, f1, 0.3, block_elements=200))
    log_p[0, 0, 0].backward()
    assert torch.isfinite(f0.grad).all() and f0.grad.abs().sum() > 0
    assert_same(cm.match_dual_softmax(cm.Similarity(f0, f1, 0.3), 0.2), dense_matches(log_p.detach().exp(), 0.2))


def test_border_cells_are_counted_from_the_edge_of_the_image():
    free = cells.away_from_border(1, 6, 7, 2, None).reshape(6, 7)
    assert free.nonzero().tolist() == [[y, x] for y in (2, 3) for x in (2, 3, 4)]
    assert cells.away_from_border(2, 6, 7, 0, None).all()


def test_border_cells_are_counted_from_the_edge_of_the_padding():
    mask = torch.zeros(1, 6, 7, dtype=torch.bool)
    mask[:, :4, :5] = True
    free = cells.away_from_border(1, 6, 7, 1, mask).reshape(6, 7)
    assert free.nonzero().tolist() == [[y, x] for y in (1, 2) for x in (1, 2, 3)]


@pytest.mark.parametrize('iterations', [1, 3, 100])
def test_optimal_transport_gives_every_column_its_mass(iterations):
    f0, f1, _ = features()
    p = log_optimal_transport(dense_scores(f0, f1, 1.0), torch.tensor(0.5), iterations).exp()
    # Each iteration ends with the columns; 1e-5: float32 sums of 38 terms, the dustbin's of mass 37.
    torch.testing.assert_close(p[:, :, :-1].sum(1), torch.ones(2, 29), atol=1e-5, rtol=0)
    torch.testing.assert_close(p[:, :, -1].sum(1), torch.full((2,), 37.0), atol=1e-3, rtol=0)


def test_optimal_transport_sends_the_unmatched_to_the_dustbin():
    scores = torch.full((1, 3, 3), -10.0)
    scores[0, 0, 1] = scores[0, 2, 0] = 10.0
    p = log_optimal_transport(scores, torch.tensor(0.0), 100).exp()[0]
    assert p.argmax(1).tolist()[:3] == [1, 3, 0] and p.argmax(0).tolist()[:3] == [2, 0, 3]
    assert p[0, 1] > 0.95 and p[2, 0] > 0.95


def test_columns_far_below_the_others_are_not_lost_to_underflow():
    # Column 1 is best for row 1, but by e^-200 less similar than row 0 to column 0.
    f0, f1 = torch.tensor([[[20.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[20.0, 0.0], [0.0, 1.0]]])
    found = cm.match_dual_softmax(cm.Similarity(f0, f1, 1.0), 0.2)
    assert found.cell0.tolist() == [0, 1] == found.cell1.tolist()
    scores = f0 @ f1.transpose(1, 2) / 2
    expected = (2 * scores - scores.logsumexp(1, keepdim=True) - scores.logsumexp(2, keepdim=True)).exp()
    assert torch.allclose(found.confidence, expected[0].diagonal())


@pytest.mark.parametrize('small', [True, False])
def test_sums_of_blocks_equal_log_sum_exp(small):
    scores = 5 * torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    sums, parts = ColumnSums(), []
    for block in scores.clone().split(3, 1):
        reference, total = exponentiate_rows_(block, small)
        sums.add(reference, block)
        parts.append(reference + total.log())
    assert sums.is_exact()
    assert torch.allclose(sums.value(), scores.logsumexp(1), atol=1e-5)
    assert torch.allclose(torch.cat(parts, 1), scores.logsumexp(2), atol=1e-5)
    sums.add(torch.full((2, 1), 300.0), torch.full((2, 1, 5), 1e-35))
    assert not sums.is_exact()
    assert sums.is_exact(torch.zeros(2, 5, dtype=torch.bool))  # no column that counts


@pytest.mark.parametrize('length, small', [(70.0, True), (80.0, False), (float('nan'), False)])
def test_lengths_say_whether_exponentials_fit_float32(length, small):
    features0 = torch.tensor([[[length, 0.0], [0.5, 0.5]]])
    assert are_small(features0, torch.tensor([[[0.0, 1.0], [0.2, 0.0]]])) is small
    assert are_small(features0[:, :0], torch.ones(1, 3, 2))


@pytest.mark.parametrize('temperature', [1.0, 0.01], ids=['small', 'large'])
def test_both_ways_to_sum_give_the_same_matches(temperature):
    generator = torch.Generator().manual_seed(1)
    f0 = 4 * torch.randn(2, 40, 16, generator=generator)
    f1 = f0[:, torch.randperm(40, generator=generator)] + 0.3 * torch.randn(2, 40, 16, generator=generator)
    valid = torch.rand(2, 40, generator=generator) > 0.2
    similarity = cm.Similarity(f0, f1, temperature, valid, valid)
    assert similarity.is_small() is (temperature == 1.0)
    found = cm.match_dual_softmax(similarity, 0.05)
    log_p = cm.log_dual_softmax(similarity)
    expected = log_p.exp()[found.batch_index, found.cell0, found.cell1]
    assert len(found.cell0) > 30
    assert torch.allclose(found.confidence, expected, rtol=1e-4)
    mutual = (log_p == log_p.amax(1, keepdim=True)) & (log_p == log_p.amax(2, keepdim=True)) & (log_p.exp() > 0.05)
    assert (mutual & valid[:, :, None] & valid[:, None]).sum() == len(found.cell0)


def test_matches_are_chosen_evenly_from_each_pair_and_keep_their_order():
    pair, cell = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 30, 0, 30, 0])  # 20 cells wide: tiles of 2 x 2
    matches = cells.CoarseMatches(pair, cell, cell + 10, torch.tensor([0.8, 0.9, 0.3, 0.1, 0.8, 0.2]))
    two = cells.choose_evenly(matches, 2, 20, 3)
    assert (two.batch_index.tolist(), two.cell0.tolist()) == ([0, 0, 1, 1, 2], [1, 30, 0, 30, 0])
    one = cells.choose_evenly(matches, 1, 20, 3)
    assert (one.batch_index.tolist(), one.cell0.tolist(), one.cell1.tolist()) == ([0, 1, 2], [1, 30, 0], [11, 40, 10])
    assert cells.choose_evenly(matches, 0, 20, 3) is matches
    assert len(cells.choose_evenly(cells.CoarseMatches(*(field[:0] for field in matches)), 3, 20, 1).cell0) == 0
    first = cells.CoarseMatches(*(field[:3] for field in matches))
    assert cells.choose_evenly(first, 2, 20, 1).cell0.tolist() == [1, 30]


@pytest.mark.parametrize('temperature', [0.3, 0.001], ids=['small', 'large'])
def test_all_parts_of_rows_together_give_the_matches_of_the_whole(temperature):
    f0, f1, _ = features()
    valid0, valid1 = random_masks()
    similarity = cm.Similarity(f0, f1, temperature, valid0, valid1, block_elements=2 * 29 * 4)
    parts = torch.randperm(37, generator=torch.Generator().manual_seed(0)).split(10)
    whole = cm.match_dual_softmax(similarity, 0.1)
    found = cm.match_dual_softmax(similarity, 0.1, parts=parts, enough=1000)
    assert len(whole.cell0) > 10
    for field, wanted in zip(found, whole, strict=True):
        # Similarities of some hundreds in float32 leave this error in a confidence.
        torch.testing.assert_close(field, wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize('masked', [False, True])
def test_rows_that_are_not_searched_compete_for_the_columns(masked):
    f0, f1, _ = features()
    similarity = cm.Similarity(f0, f1, 0.3, *(random_masks() if masked else (None, None)))
    parts = torch.arange(37).split(10)
    whole = cm.match_dual_softmax(similarity, 0.1)
    found = cm.match_dual_softmax(similarity, 0.1, parts=parts, enough=2)
    assert len(found.cell0) > 2 and found.cell0.max() < 10
    # These features have no cell whose rival has the larger similarity and the smaller P.
    first = whole.cell0 < 10
    for field, wanted in zip(found, whole, strict=True):
        torch.testing.assert_close(field, wanted[first])


def test_rows_are_searched_until_there_are_enough_matches(monkeypatch):
    f0, f1, _ = features()
    similarity = cm.Similarity(f0, f1, 0.3)
    parts = torch.arange(37).split(10)
    least = cm.match_dual_softmax(similarity, 0.1, parts=parts, enough=1).batch_index.bincount().min().item()
    monkeypatch.setattr(cm, 'SURPLUS', 1.0)
    found = cm.match_dual_softmax(similarity, 0.1, parts=parts, enough=least + 1)
    assert 10 <= found.cell0.max() < 20  # the first part has too few matches after the other rows have competed
    assert found.batch_index.bincount().min() > least
    monkeypatch.setattr(cm, 'SURPLUS', 1000.0)
    assert cm.match_dual_softmax(similarity, 0.1, parts=parts, enough=1).cell0.max() >= 30


def test_parts_of_rows_are_every_cell_once_and_each_is_spread_over_the_image():
    cpu = torch.device('cpu')
    parts = cells.parts_of_rows(60, 80, 1000, cpu)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(4800))
    assert [len(part) for part in parts] == [1800, 1500, 1500]
    assert len(cells.parts_of_rows(120, 160, 1000, cpu)[0]) == 2400  # as many for a larger image, by sixteenths of it
    for part in parts:
        searched = torch.zeros(60, 80).index_put((part // 80, part % 80), torch.tensor(1.0))
        squares = searched.unfold(0, 4, 4).unfold(1, 4, 4)
        assert (squares.sum((2, 3)) == len(part) / 300).all()
    assert cells.parts_of_rows(60, 80, 0, cpu) == []
    assert cells.parts_of_rows(60, 80, 1601, cpu) == []
    assert sum(len(part) for part in cells.parts_of_rows(60, 80, 1600, cpu)) == 4800
    assert cells.parts_of_rows(60, 80, 1000, torch.device('cuda')) == []


@pytest.mark.parametrize('columns', [24, 29])
def test_large_elements_are_the_same_in_one_step_and_in_two(monkeypatch, columns):
    block = torch.rand(2, 7, columns, generator=torch.Generator().manual_seed(0))
    least = torch.full((2, 7), 0.8)
    found = []
    for devices in (('cpu',), ()):
        monkeypatch.setattr(cm, 'FOLDING_DEVICES', devices)
        found.append(sorted(zip(*(index.tolist() for index in cm._where_above(block, least)), strict=True)))
    assert found[0] == found[1] == [tuple(place) for place in (block > 0.8).nonzero().tolist()]
