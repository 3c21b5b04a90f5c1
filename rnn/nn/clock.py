"""When a stream was heard of last: what the input side reads of it, and the serving side moves on.

A stream's clock is a row (last_at_ms, last_seq, seq_bits) of int64. Bit i of seq_bits is set if last_seq - i was seen.
"""

NEVER_MS = -(1 << 62)
"""`last_at_ms` of a stream that has had no reading; far enough below every time, and differences do not overflow."""

INITIAL = (NEVER_MS, -1, 0)
"""The clock of such a stream."""
