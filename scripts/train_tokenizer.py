"""Learn one vocabulary for source and target language from text files, and save it as a Hugging Face tokenizer."""

import sys

from hf_vanilla_transformer.commands.train_tokenizer import main

if __name__ == "__main__":
    sys.exit(main())
