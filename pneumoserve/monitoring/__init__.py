"""Whether what is promised holds at a site."""
