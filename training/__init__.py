"""Training: ingest, train, evaluate. The only part of the product that needs torch."""
