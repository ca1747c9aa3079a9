"""TorchServe's handler, which is packaged into the MARs of both models."""
