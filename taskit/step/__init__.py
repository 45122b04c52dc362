"""One training step: what memory rehearses and what training takes."""
