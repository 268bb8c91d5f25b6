"""What a user runs: train, predict, evaluate, report, benchmark."""
