"""Floor 10: one small file per verb, no logic of its own."""
