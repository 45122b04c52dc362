"""Learned tasks: LoRA adapters of a backbone, in a folder or on the Hub, read without trusting them."""
