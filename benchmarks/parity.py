"""Differences of LoFTR and Efficient LoFTR to kornia and transformers with the same weights.

    . scripts/environment.sh && python benchmarks/parity.py

Weights are random, made such that a shifted photograph has many matches (test/test_*_parity.py, which have the bounds).
"""

from __future__ import annotations

import sys
from pathlib import Path

from loftr_ros.runtime import prepare_process

prepare_process()
sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))

import report  # noqa: E402
import test_efficient_loftr_parity as efficient  # noqa: E402
import test_loftr_parity as loftr  # noqa: E402
import torch  # noqa: E402

LOFTR_SIZES = [(320, 240), (640, 480), (328, 248)]
EFFICIENT_SIZES = [(320, 256), (640, 480)]


def loftr_rows() -> list[list]:
    """Return a row for each variant, size and way of preparing LoFTR, against kornia."""
    rows = []
    for variant in ('original', 'fixed'):
        theirs, ours = loftr.peers(variant)
        for size in LOFTR_SIZES:
            images = loftr.shifted_photo(*size)
            wanted = theirs(dict(zip(('image0', 'image1'), images, strict=True)))
            for form, network in zip(('as loaded', 'fused', 'Winograd'), loftr.prepared(ours), strict=True):
                found = network(*images)
                same = torch.equal(found.keypoints0, wanted['keypoints0'])
                row = [f'{size[0]}x{size[1]}', variant, form, len(found.index0), 'equal' if same else 'differ']
                if same:
                    row += [
                        f'{(found.keypoints1 - wanted["keypoints1"]).abs().max():.1e}',
                        f'{(found.confidence - wanted["confidence"]).abs().max():.1e}',
                    ]
                rows.append(row)
    return rows


def efficient_rows() -> list[list]:
    """Return a row for each size and form of Efficient LoFTR, against transformers up to the coarse matches."""
    rows = []
    for size in EFFICIENT_SIZES:
        theirs, ours = efficient.peers()
        images = efficient.shifted_photo(*size)
        pair = torch.stack(images, 1).expand(1, 2, 3, *images[0].shape[2:])
        wanted = theirs.efficientloftr(pair).feature_maps
        cell1 = theirs(pair).matches[0, 1]
        cell0 = (cell1 >= 0).nonzero()[:, 0]
        for form in ('as loaded', 'fused'):
            network = ours if form == 'as loaded' else ours.prepare_for_inference()
            features = [network.extract(image) for image in images]
            coarse = network.loftr_coarse(*(f.coarse for f in features))
            found = network.match(*features, efficient.THRESHOLD, border=2)
            same = torch.equal(found.index0, cell0) and torch.equal(found.index1, cell1[cell0])
            backbone = max(efficient.relative(f.maps.half, wanted[1][i : i + 1]) for i, f in enumerate(features))
            tokens = max(efficient.relative(c.permute(0, 3, 1, 2), wanted[0][:, i]) for i, c in enumerate(coarse))
            size_text = f'{size[0]}x{size[1]}'
            agreement = 'equal' if same else 'differ'
            rows.append([size_text, form, len(cell0), agreement, f'{backbone:.1e}', f'{tokens:.1e}'])
    return rows


def transport_rows() -> list[list]:
    """Return a row for each number of Sinkhorn iterations, against transformers."""
    from transformers.models.superglue.modeling_superglue import log_optimal_transport as theirs

    torch.manual_seed(0)
    scores, bin_score = 5 * torch.randn(2, 150, 130), torch.tensor(1.3)
    rows = []
    for iterations in (3, 20, 100):
        ours = loftr.log_optimal_transport(scores, bin_score, iterations)
        rows.append([iterations, f'{(ours - theirs(scores, bin_score, iterations)).abs().max():.1e}'])
    return rows


def main() -> None:
    with torch.no_grad():
        tables = (
            report.table(
                ['size', 'position', 'form', 'matches', 'cells', 'keypoints [px]', 'confidence'], loftr_rows()
            ),
            report.table(['size', 'form', 'matches', 'cells', 'backbone', 'coarse features'], efficient_rows()),
            report.table(['iterations', 'log assignment'], transport_rows()),
        )
    titles = (
        'LoFTR against kornia 0.9.0: largest differences',
        'Efficient LoFTR against transformers 5.23.0: largest relative differences, up to the coarse matches',
        'Optimal transport against transformers 5.23.0: largest difference',
    )
    sections = [f'## {title}\n\n{table}' for title, table in zip(titles, tables, strict=True)]
    head = f'# Parity with the peers, same random weights\n\n`python benchmarks/parity.py`\n\n{report.circumstances()}'
    report.write('parity.md', '\n\n'.join([head, *sections]) + '\n')


if __name__ == '__main__':
    main()
