"""The noise levels of a run: first, last, spacing and number; docs/studies/schedule.md."""
