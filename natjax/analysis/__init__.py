"""What data and models are like: measures to print and to keep."""
