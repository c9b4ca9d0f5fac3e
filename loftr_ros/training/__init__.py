"""Training: data sets, supervision, losses, the loop.

batch.py       Pair and PairBatch: two images and the position of every pixel in the other image; the form of all data
supervision.py ground truth from it: corresponding coarse cells, pixels and sub-pixel offsets; points from depth
losses.py      the losses of the papers as functions of tensors
"""
