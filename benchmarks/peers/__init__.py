"""Flawline beside other packages: same images, same network, same frames, one process per case, in alternation.

Imports nothing, since our own worker is in this package and its memory is measured.
"""
