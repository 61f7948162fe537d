"""The documentation as a site: `python -m website` builds it from docs/ and the code.

Pages that follow from the code (commands, recipes) and those that lie at the root
(changelog, contributing, security) are written while the site is built.
"""
