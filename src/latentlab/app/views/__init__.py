"""The pages, one a file: widgets, one analysis call, one viz call."""
