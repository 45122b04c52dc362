"""TaskIT: plan, train and share LoRA adapters that fit a memory budget."""
