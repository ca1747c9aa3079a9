"""Load tests that tell the truth: calls are sent when they are due, and their time counts from then."""
