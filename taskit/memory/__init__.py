"""What a training step needs in memory, as a function of the strategy."""
