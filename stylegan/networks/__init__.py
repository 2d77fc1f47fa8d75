"""Generators and discriminators, rebuilt from a small JSON-able config; tensor names as published."""
