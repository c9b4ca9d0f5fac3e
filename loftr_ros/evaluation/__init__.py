"""Sequences and bags in; metrics, tables and pictures out."""
