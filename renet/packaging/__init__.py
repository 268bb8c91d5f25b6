"""Packaging of builds: the archive, the GPU bundle, and the libraries in them."""
