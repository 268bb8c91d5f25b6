"""Datasets: from an archive, a folder or a drawing program to verified LMDB splits with a dataset.json."""
