"""python -m gpt2lab: which command lines there are."""

COMMANDS = {
    "train": "train a GPT-2",
    "prepare": "text into token files, beforehand",
    "plan": "what a training will take",
    "runs": "which runs there are, and how two of them differ",
    "sample": "text from a trained model",
    "evaluate": "perplexity and benchmarks, beside published numbers",
    "export": "a trained model in files that others read",
    "insight": "pictures of what happens inside a model",
    "explore": "a page on which one goes on with a text and looks inside",
    "sweep": "studies over many trainings",
    "benchmark": "ratios of speed on this machine",
}

if __name__ == "__main__":
    print("usage: python -m gpt2lab.<command> [--help] [setting=value ...]\n")
    for name, purpose in COMMANDS.items():
        print(f"  {name:10} {purpose}")
