"""The parts of benchmarks/transfer.py: tasks, lean training, truths, predictors, tables."""
