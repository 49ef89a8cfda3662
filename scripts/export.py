"""Export a trained model to another system: CTranslate2, ONNX or torch.export."""

import sys

from hf_vanilla_transformer.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
