"""Compare this implementation with recorded outputs of the originals; see scripts/check_parity.py."""
