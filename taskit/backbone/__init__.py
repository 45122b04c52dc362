"""Base models: find their weights, load them for a task, and name the modules that LoRA may adapt."""
