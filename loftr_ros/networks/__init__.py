"""Torch modules: tensors in, named tuples of tensors out. No files, no numpy, no configuration."""
