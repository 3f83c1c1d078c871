"""Measuring: this machine's limits, how fast a model runs, and a peer beside it in the same run."""
