"""Trains a patch prior: python train.py --config configs/NAME.py --workdir DIR [--section.field value ...]"""

from padis_jax.cli.train import main

if __name__ == "__main__":
    main()
