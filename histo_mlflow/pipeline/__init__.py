"""How the work goes: what jobs have in common, from opened inputs to a registered version."""
