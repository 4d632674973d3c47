"""One module a claim. Each gives a small result object with `.table()`, `.figure()` and `.verdict()`."""
