"""The readout as a monitor: scores of tokens, thresholds from neutral texts, and `Watch`, which puts them to use.

`scores` -> `thresholds` -> `watched` (a finished text) and `log` -> `live` (while the model writes) -> `watch`.
"""
