"""Conversions into the types of other libraries; each module needs its library."""
