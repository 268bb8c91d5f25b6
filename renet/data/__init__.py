"""Prepared datasets: dataset.json, splits in LMDB, images and label maps."""
