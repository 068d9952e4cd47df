"""Floor 8: what features mean. Dashboards: one pass over text gives examples and statistics of every feature."""
