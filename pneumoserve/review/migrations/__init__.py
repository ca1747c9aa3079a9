"""How the review database came to its present form, step by step."""
