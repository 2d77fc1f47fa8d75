"""Model files: our safetensors format, foreign formats turned into it, and the folder that holds them."""
