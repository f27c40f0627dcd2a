"""The parts of `accelerator.py`: each is a generator of results and a table of them."""
