"""Weights and snapshots: files read and checked, what a training starts from, VGG-16."""
