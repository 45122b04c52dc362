"""The sections of docs/evidence.md, one file a benchmark; each says what its JSON shows and trains nothing."""
