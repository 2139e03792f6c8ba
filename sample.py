"""Reconstructs from few measurements: python sample.py [--config FILE] [--workdir DIR] [--section.field value ...]"""

from padis_jax.cli.sample import main

if __name__ == "__main__":
    main()
