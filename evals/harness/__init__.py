"""What `evals/generate.py` and `evals/score.py` share: data sets as questions, systems that answer, folders of runs."""
