"""Studies: trainings that differ in a few settings, run side by side until a question is answered.

A study is a file of sweeps/ (`study`), its points lie in a space (`space`) and are chosen by Optuna
(`storage`, `sampling`), each seed of a point is a trial, a process of its own (`process`) in an
ordinary run folder, and `scheduler` hands them out. `trials` reads what is there.
"""
