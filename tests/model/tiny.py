"""A chat model small enough to make anew in each run: 2 layers, some 400 tokens, random weights.

Its tokenizer has what real ones have: byte-level BPE, special tokens, an added token that is
not flagged as special, an added run of white space.
"""

from pathlib import Path
from typing import Any

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<file_sep>"]
CORPUS = [
    "the user asks the assistant and the system answers",
    "In 2024, fifteen cats sat on a mat. What's that? It's a mat!",
    "def f(x):\n    return x + 1\n",
    "Grüße aus Köln, sagt der Bär. Ça va? 日本語 😀",
]


def tiny_tokenizer(template: str | None = CHATML, extra: tuple[str, ...] = ("<think>",)) -> Any:
    """A transformers tokenizer; ``extra`` are added tokens that are not flagged as special."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS * 3, trainer)
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in extra])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=template,
    )


def save_tiny_model(folder: Path) -> Path:
    """Write model and tokenizer as a local model folder, the same bytes each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.6,  # wide enough that outputs differ from prompt to prompt
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
