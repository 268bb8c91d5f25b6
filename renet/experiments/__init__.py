"""Experiments of the paper, performed and written beside its tables."""
