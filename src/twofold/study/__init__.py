"""Studies: grids of trials, resumable and shared, their statistics and their report."""
