"""One run, from its settings to a results folder: case, solution, scores, results; and what training is told and tells."""
