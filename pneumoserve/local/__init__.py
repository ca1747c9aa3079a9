"""The local stack: an S3 server, TorchServe and the front as children of one process, all on loopback."""
