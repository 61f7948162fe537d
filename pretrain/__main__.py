"""`python -m pretrain`, as torchrun starts it."""

from pretrain.cli import main

main()
