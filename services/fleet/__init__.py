"""The fleet: one Ray actor a shard, and the supervisor that deals partitions, starts, watches and replaces them."""
