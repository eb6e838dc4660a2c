"""Faults made on purpose, to see that runs outlive them; see scripts/check_resume.py."""
