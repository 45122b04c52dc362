"""The Hugging Face Hub: find and pull learned tasks of others, push one's own, all through huggingface_hub."""
