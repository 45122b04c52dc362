"""Several datasets trained at once over one backbone (TGLoRA)."""
