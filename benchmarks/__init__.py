"""Measurements that a test's clock would make flaky: each has a command, and its committed result beside it."""
