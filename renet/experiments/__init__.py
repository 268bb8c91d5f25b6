"""The paper's experiments, performed and written beside its tables."""
