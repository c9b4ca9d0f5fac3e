"""Frames in, motion out."""
