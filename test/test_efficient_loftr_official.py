"""Efficient LoFTR against the authors' code, packaged as efficientloftr-inference, with the same random weights.

Up to the refined points: transformers' fine stage differs from the authors' (test_efficient_loftr_parity.py).
"""

import sys

import pytest

torch = pytest.importorskip('torch')

from test_efficient_loftr_parity import THRESHOLD, peers, shifted_photo  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def official(ours):
    """The authors' network with the weights of ours."""
    grid = pytest.importorskip('kornia.geometry.grid', reason='needs kornia: make test-slow installs it')
    sys.modules.setdefault('kornia.utils.grid', grid)  # its name in the kornia that the package was written for
    package = pytest.importorskip('efficientloftr_inference', reason='make test-slow installs it')
    theirs = package.LoFTR(config=package.full_config(coarse_threshold=THRESHOLD))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return package.reparameter(theirs.eval())


def test_efficient_loftr_gives_the_matches_of_the_authors_code():
    _, ours = peers()
    theirs = official(ours)
    images = shifted_photo(640, 480)
    data = dict(zip(('image0', 'image1'), images, strict=True))
    theirs(data)
    ours.prepare_for_inference()
    found = ours.match(*(ours.extract(image) for image in images), THRESHOLD, border=2)
    assert len(found.index0) > 400
    assert torch.equal(found.index0, data['i_ids']) and torch.equal(found.index1, data['j_ids'])
    torch.testing.assert_close(found.confidence, data['mconf'], atol=1e-4, rtol=1e-3)
    for points, theirs_px in ((found.keypoints0, data['mkpts0_f']), (found.keypoints1, data['mkpts1_f'])):
        # Their origin is the corner of the top-left pixel, ours its centre.
        torch.testing.assert_close(points, theirs_px - 0.5, atol=1e-3, rtol=0)
