"""One run, from its settings to a results folder: case, solution, scores, results; and the files of a training."""
