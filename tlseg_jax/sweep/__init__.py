"""Studies: grids of methods, numbers of labelled scans and seeds, run cell by cell."""
