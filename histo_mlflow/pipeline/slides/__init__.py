"""Slides on their way: scored one by one or many by many, or cut into tiles; what their runs keep of it."""
