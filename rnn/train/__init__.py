"""Learning from the past: what is learned from, what it costs, and the training itself."""
