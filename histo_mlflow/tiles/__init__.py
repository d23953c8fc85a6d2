"""What goes in: tiles from files, folders or the demo, as one `TileSet`; knows nothing of networks or tracking."""
