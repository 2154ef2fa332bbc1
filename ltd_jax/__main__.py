"""`python -m ltd_jax`: the `ltd` command where no script of that name is installed."""

from ltd_jax.cli import main

if __name__ == "__main__":
    main()
