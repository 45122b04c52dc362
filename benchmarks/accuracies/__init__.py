"""The parts of benchmarks/accuracy.py: its tasks, and the ways of training that it compares."""
