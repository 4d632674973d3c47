"""Widgets: thin views over the result objects. What they show is computed elsewhere; each has a static twin.

`lab_view.py` turns readouts into arrays to draw, `prompt_lab.py` and `prompt_lab.js` draw them live in Jupyter,
`twin.py` draws them as HTML that needs neither kernel nor script.
"""
