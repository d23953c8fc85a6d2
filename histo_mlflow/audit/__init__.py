"""What can be wrong with a set of tiles: one module for each family of checks, which returns findings; trains and keeps nothing."""
