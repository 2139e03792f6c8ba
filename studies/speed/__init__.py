"""Time, memory and precision of the parts."""
