"""Makes a golden set; see ../README.md."""
