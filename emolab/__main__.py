"""`python -m emolab` is `emolab`."""

from emolab.cli import main

main()
