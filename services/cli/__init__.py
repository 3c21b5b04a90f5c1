"""The `streamrnn` command: parse, call, print. Nobody imports this room; heavy imports stand inside of the commands."""
