"""One random tiling against the average over all of them: bias and variance, in closed form and measured."""
