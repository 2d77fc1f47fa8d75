"""How good a generator is, measured without a download: KID and SWD against the pictures it learned from."""
