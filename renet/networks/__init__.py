"""Networks of the paper: written as prototxt, and their costs and receptive fields."""
