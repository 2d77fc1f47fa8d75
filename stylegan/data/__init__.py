"""Training pictures: reading folders and zips, preparing them, and drawing from them endlessly."""
