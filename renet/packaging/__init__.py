"""What is shipped: the archive, the GPU bundle, and the libraries in them."""
