"""What ``benchmarks/explorer.py`` measures, a module for each way of using the explorer."""
