"""TorchServe handlers: one thin file a model; what they share is `pneumoserve.models.handler`."""
