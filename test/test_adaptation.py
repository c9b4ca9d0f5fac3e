"""Homographic adaptation with a detector of known keypoints."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
cv2 = pytest.importorskip('cv2')

from loftr_ros.networks.superpoint import CELL, DUSTBIN, DenseOutput, SuperPoint  # noqa: E402
from loftr_ros.training import adaptation  # noqa: E402
from loftr_ros.training.adaptation import adapt, label_file, label_photographs, load_label, mean_heat_map  # noqa: E402
from loftr_ros.training.data import PairDataset, is_held_back  # noqa: E402
from loftr_ros.training.settings import DataConfig, LabelConfig  # noqa: E402
from loftr_ros.weights import Checkpoint, save  # noqa: E402

SMALL = {
    'widths': (8, 8, 16, 16), 'head': 16, 'descriptor': 16, 'downsample': 'stride', 'batch_norm': True,
    'sampling': 'exact',
}  # fmt: skip
DOTS = np.array([[40, 30], [90, 60], [60, 90], [120, 40]])


class BrightDots(torch.nn.Module):
    """A detector of the brightest pixel of each cell, where that is bright."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def dense(self, image):
        pixels = torch.nn.functional.pixel_unshuffle(image, CELL)  # (B, 64, H / 8, W / 8)
        best, index = pixels.max(1)
        logits = torch.zeros(len(image), DUSTBIN + 1, *pixels.shape[2:])
        logits[:, DUSTBIN] = torch.where(best > 0.45, -20.0, 20.0)
        logits.scatter_(1, index[:, None], torch.where(best > 0.45, 20.0, 0.0)[:, None])
        return DenseOutput(logits, logits)


def dotted(places, height=120, width=160):
    image = np.full((height, width), 20, np.uint8)
    for x, y in places:
        cv2.circle(image, (int(x), int(y)), 2, 255, -1)
    return image


def test_keypoints_seen_from_many_directions_are_found_at_their_place():
    found = adapt(BrightDots(), dotted(DOTS), LabelConfig(views=12, threshold=0.02), np.random.default_rng(0))
    distance = np.linalg.norm(found[:, None] - DOTS[None], axis=-1)
    assert (distance.min(axis=0) < 2.5).all()  # every dot; it is five pixels wide
    assert (distance.min(axis=1) < 5).all()  # and nothing else


def test_the_border_of_a_view_is_not_counted():
    heat = mean_heat_map(BrightDots(), dotted([*DOTS, (1, 1), (158, 118)]), 1, np.random.default_rng(0))
    assert heat.shape == (120, 160) and (heat[DOTS[:, 1], DOTS[:, 0]] > 0.1).any()
    assert not heat[:3].any() and not heat[-3:].any()


def test_at_most_one_keypoint_for_an_area():
    image = dotted([(x, y) for x in range(20, 150, 16) for y in range(20, 110, 16)])
    few = adapt(
        BrightDots(), image, LabelConfig(views=1, threshold=0.0, area_px=120 * 160 // 7), np.random.default_rng(0)
    )
    assert len(few) == 7


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / 'photographs'
    folder.mkdir()
    paths = [folder / f'{number}.png' for number in range(12)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), dotted(DOTS + number, 240, 320))
    (folder / 'broken.png').write_bytes(b'no image')
    return folder, paths


def test_labels_are_made_once_and_a_resumed_run_makes_the_same(photographs, tmp_path, monkeypatch, caplog):
    _, paths = photographs
    monkeypatch.setattr(adaptation, 'load_detector', lambda _: BrightDots())
    config = LabelConfig(detector='known', side_px=160, views=3)
    whole, interrupted = tmp_path / 'whole', tmp_path / 'interrupted'
    device = torch.device('cpu')
    label_photographs([*paths, paths[0].with_name('broken.png')], whole, config, device, progress=False)
    assert 'broken.png' in caplog.text
    assert len(list(whole.iterdir())) == len(paths)
    label_photographs(paths[:5], interrupted, config, device, progress=False)
    kept = label_file(interrupted, paths[0]).stat().st_mtime_ns
    label_photographs(paths, interrupted, config, device, progress=False)
    assert label_file(interrupted, paths[0]).stat().st_mtime_ns == kept
    for path in paths:
        first, second = (load_label(label_file(folder, path)) for folder in (whole, interrupted))
        assert first.image.shape == (120, 160)
        assert np.array_equal(first.image, second.image) and np.array_equal(first.keypoints, second.keypoints)


def test_the_data_set_gives_views_of_labelled_photographs(photographs, tmp_path, monkeypatch):
    folder, paths = photographs
    monkeypatch.setattr(adaptation, 'load_detector', lambda _: BrightDots())
    labels = tmp_path / 'labels'
    label_photographs(paths, labels, LabelConfig(side_px=160, views=3), torch.device('cpu'), progress=False)
    config = DataConfig(
        photographs=str(folder),
        photograph_weight=1.0,
        panorama_weight=0.0,
        scene_weight=0.0,
        width=64,
        height=64,
        occluders=0,
    )
    training = PairDataset(config, 0, 20, labels=labels)
    assert set(training.photographs) == {path for path in paths if not is_held_back(path)}  # not the broken one
    pairs = [training[index] for index in range(20)]
    assert sum(int((pair.keypoints0 == 1).sum()) for pair in pairs) > 10
    assert PairDataset(config, 0, 1)[0].keypoints0 is None


def test_the_detector_comes_from_the_weights_of_a_run(tmp_path):
    path = tmp_path / 'best.safetensors'
    save(path, SuperPoint(**SMALL).state_dict(), Checkpoint('superpoint_small', 'superpoint', SMALL))
    heat = mean_heat_map(adaptation.load_detector(str(path)), dotted(DOTS), 2, np.random.default_rng(0))
    assert heat.shape == (120, 160)
