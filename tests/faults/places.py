"""The functions of a training in which hooks act, by name."""

STEP = "gpt2lab.lightning_module:GPT2LightningModule.training_step"
VALIDATION = "gpt2lab.lightning_module:GPT2LightningModule.validation_step"
SAVE = "gpt2lab.checkpoint:Checkpoints.save"
"""A save as the training's own thread sees it: records are flushed, weights copied; written here
only where it is in the foreground."""
WRITE = "gpt2lab.checkpoint:Checkpoints._write"
"""Between its two ends a checkpoint is written, named, and old ones are deleted, in a thread."""
FOLDER = "gpt2lab.run_folder:made"
DATA = "gpt2lab.experiment:build_data"
TRAINER = "gpt2lab.training:build_trainer"
SUMMARY = "gpt2lab.training:summarize"
ANSWERS = "gpt2lab.training:show"
