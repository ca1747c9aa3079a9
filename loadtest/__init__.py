"""Load tests whose figures can be believed: calls are sent when they are due, and their time counts from then."""
