"""azarr's faces towards other packages, each in a module of its own that is imported by whoever wants it."""
