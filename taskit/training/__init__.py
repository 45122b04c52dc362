"""Plan in, run folder out: LoRA by PEFT, the loop by Accelerate."""
