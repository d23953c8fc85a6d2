"""Whole slides: read, find tissue, lay tiles over it, and write what a model says of them as files that viewers open."""
