"""What can be wrong with a set of tiles: a module for each family of checks, which returns findings; keeps nothing."""
