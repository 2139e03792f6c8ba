"""Real limited-angle scans: the Helsinki Tomography Challenge 2022."""
