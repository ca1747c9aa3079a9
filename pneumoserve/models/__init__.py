"""The models container: the two models of one verified release, by TorchServe on loopback or by workers of our own."""
