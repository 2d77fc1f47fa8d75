"""Speed as ratios measured in one run: our pictures and training steps against a textbook and the machine's floor."""
