"""Many devices and processes, and what a run takes of them."""
