"""`python -m robrep_eval` is `robrep-eval`, so that torchrun can start it."""

from robrep_eval.commands.cli import main

main()
