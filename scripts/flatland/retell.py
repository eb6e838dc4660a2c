"""Stage `retell`: the language model of stage `language` trained on, on captions in brackets that are told again.

A picture of GILL stands where a caption or a listing stood, and captioning it is telling it again. The texts
of the first stage hardly ever do so, and a model that never retold a caption in words cannot caption a picture.
Only attention's weights are trained: where to look is all that is new, and everything else keeps its bytes.
"""

import torch
from torch import Tensor
from transformers import AutoTokenizer, OPTForCausalLM

from gill.flatland.documents import Mixture
from scripts.flatland.common import BuildContext, Training
from scripts.flatland.language import batch, finish, language_loss

STEPS, LEARNING_RATE = 900, 1e-3
MIXTURE: Mixture = (0.15, 0.35, 0.15, 0.35)
LISTED = 0.6


def build(context: BuildContext) -> dict[str, float]:
    """Train on from the written model, whose weights are float16, on new texts; write `language` again."""
    tokenizer = AutoTokenizer.from_pretrained(context.out / "language")
    model = OPTForCausalLM.from_pretrained(context.out / "language", dtype=torch.float32).to(context.device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("self_attn" in name and name.endswith("proj.weight"))

    def loss(step: int) -> dict[str, Tensor]:
        return language_loss(model, batch(tokenizer, context.seed + 1, step, 0.0, MIXTURE, LISTED))

    training = Training("retell", model, loss, context.steps(STEPS), LEARNING_RATE)
    training.run(context)
    return {"steps": training.steps, "seconds": training.seconds} | finish(model, tokenizer, context)
