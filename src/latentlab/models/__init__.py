"""Models: what they are (contract), what they are made of (staged networks), every family, and foreign modules."""
