"""`python -m robrep_eval` is `robrep-eval`, so that torchrun can start it."""

from robrep_eval.cli import main

main()
