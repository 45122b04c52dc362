"""The sister methods of TaskIT: other ways to spend a budget, one file each."""
