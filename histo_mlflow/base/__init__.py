"""What everything stands on: texts, small files, processes; knows nothing of tiles."""
