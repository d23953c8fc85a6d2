"""What can be run: one module per entry point of MLproject, each with one function that takes its configuration."""
