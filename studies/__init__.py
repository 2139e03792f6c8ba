"""Studies of the package, outside of it: each command measures what its page in docs/studies shows."""
