"""Networks and results to look at: pages, curves, feature maps, receptive fields."""
