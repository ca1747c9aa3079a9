"""The archive: object storage as the only state; every call is on record before it is answered."""
