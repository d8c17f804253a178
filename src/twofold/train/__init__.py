"""Training: one loop for every method, exact resume, and the trial around them."""
