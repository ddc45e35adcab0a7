"""Whole transfers over emulated links that differ, are throttled, and go away; needs root."""
