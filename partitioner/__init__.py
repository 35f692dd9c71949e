"""Turns a GGUF model file into a plan directory."""
