"""Inference: a trained network and a dense CRF over images, and the search for its parameters."""
