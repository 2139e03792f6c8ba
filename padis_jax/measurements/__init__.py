"""What was measured: simulated measurements, and measured scans from files with their geometry and their noise."""
