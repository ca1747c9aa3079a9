"""The front: KServe's ModelServer before TorchServe, in the transformer-container."""
