"""Training: data sets, supervision, losses, the loop.

batch.py       Pair and PairBatch: two images and where every pixel of one lies in the other; all data take this form
supervision.py ground truth from it: corresponding coarse cells, pixels and sub-pixel offsets; points from depth
losses.py      the losses of the papers, plain functions of tensors
"""
