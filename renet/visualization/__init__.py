"""Visualization of networks and results: report pages, curves, feature maps, receptive fields."""
