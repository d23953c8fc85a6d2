"""What learns: networks, their first weights, their files."""
