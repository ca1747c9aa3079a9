"""Tools for those who change this repository; no part of what is installed."""
