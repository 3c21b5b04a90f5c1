"""Networks as the lecture writes them: cells, heads, the input side. State in, state out; trained and served alike."""
