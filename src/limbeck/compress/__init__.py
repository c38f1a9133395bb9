"""Smaller twins of a trained network: its layers replaced by factors, and trained slice by slice to do as they did."""
