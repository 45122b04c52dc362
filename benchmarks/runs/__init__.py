"""What benchmarks/training.py measures, one bar a file."""
