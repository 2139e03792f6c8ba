"""The command line."""

import os

# Read when jax is imported, which no module does before this one. XLA would print two lines of the processor's features
# for every program that it loads from the cache of compiled programs (openxla/xla issue 44565). 1 is what jax sets
# itself, and hands to the programs that a program starts.
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
