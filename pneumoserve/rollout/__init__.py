"""Rolling a release out: evidence before any traffic, traffic in steps, and one switch that always has an owner."""
