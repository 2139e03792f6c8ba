"""The command-line programs: padis-train and padis-sample (train.py and sample.py in a checkout), padis-data."""
