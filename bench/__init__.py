"""azarr's own benchmark suite: ``nox -s bench``, or ``python -m bench`` in an environment of your own."""
