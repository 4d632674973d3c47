"""One script for each way to read the residual stream; each runs in a process, and where need be a venv, of its own."""
