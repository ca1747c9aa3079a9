"""The models container: TorchServe on loopback, with the two models of one verified release."""
