"""Floor 3: one decoder that every family is a config of. Knows no file format and no dictionary."""
