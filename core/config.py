"""ModelConfig: every architectural choice of a Transformer in one frozen record.

One record describes all three families, so that one set of layers can be all of them:

- ``encoder-decoder``: Vaswani et al. 2017, "Attention Is All You Need"; Marian; M2M100
- ``decoder-only``: GPT-2, Llama, Mistral, Qwen
- ``encoder-only``: BERT

What is not an architectural choice (data, optimiser, sampling) does not belong here.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Family = Literal["encoder-decoder", "decoder-only", "encoder-only"]
Positions = Literal["sinusoidal", "learned", "rotary"]
SinusoidalLayout = Literal["interleaved", "halves", "halves-t2t"]
Norm = Literal["layernorm", "rmsnorm"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


class RopeScaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rotary frequencies are stretched for contexts longer than those trained on.

    ``linear`` divides every frequency by ``factor``. ``llama3`` divides only the long
    wavelengths, blending between the two borders (Llama 3.1).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of a Transformer. Construct it through :meth:`create`, which validates."""

    family: Family
    vocab_size: int
    d_model: int
    n_heads: int
    d_ff: int
    n_encoder_layers: int = 0
    n_decoder_layers: int = 0
    max_positions: int = 512

    # attention
    n_kv_heads: int | None = None  # None: as many as n_heads (multi-head); 1: multi-query
    d_head: int | None = None  # None: d_model // n_heads
    qkv_bias: bool = True
    out_bias: bool = True
    qk_norm: bool = False  # RMSNorm over each head's query and key (Qwen3)
    sliding_window: int | None = None  # a token sees itself and this many - 1 before it

    # feed-forward
    activation: Activation = "relu"
    gated_ff: bool = False  # w_down(act(w_gate(x)) * w_up(x)), Shazeer 2020
    ff_bias: bool = True

    # normalisation
    norm: Norm = "layernorm"
    norm_position: Literal["pre", "post"] = "pre"
    norm_eps: float = 1e-5
    final_norm: bool = True  # after the last layer of a pre-norm stack
    embedding_norm: bool = False  # after the sum of embeddings (BERT)

    # positions
    positions: Positions = "sinusoidal"
    sinusoidal_layout: SinusoidalLayout = "interleaved"
    position_offset: int = 0  # the first token's row in the position table (M2M100: pad_id + 1)
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None

    # embeddings and output
    scale_embeddings: bool = False  # multiply by sqrt(d_model), Vaswani et al. section 3.4
    share_embeddings: bool = True  # one table for source and target
    tie_output: bool = True  # the output projection is the (target) embedding
    output_bias: bool = False  # final logits bias (Marian, BERT's MLM head)
    mlm_transform: bool = False  # linear + activation + norm before the MLM projection (BERT)
    n_token_types: int = 0

    dropout: float = 0.0

    # special tokens
    pad_id: int = 0
    bos_id: int | None = None
    eos_id: int | None = None
    eos_ids: tuple[int, ...] = ()  # further ids that end a generation
    mask_id: int | None = None
    unk_id: int | None = None  # stands for every id of the tokenizer from vocab_size on (Marian)
    decoder_start_id: int | None = None  # None: bos_id
    source_prefix: tuple[int, ...] = ()  # before every source sentence (M2M100: its language)
    target_prefix: tuple[int, ...] = ()  # after the start of every target (M2M100: its language)
    banned_ids: tuple[int, ...] = ()  # never written (Marian: padding)

    @property
    def head_dim(self) -> int:
        return self.d_head or self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every id that ends a generation."""
        first = () if self.eos_id is None else (self.eos_id,)
        return first + tuple(i for i in self.eos_ids if i != self.eos_id)

    @property
    def start_id(self) -> int | None:
        """The id a decoder is started with."""
        return self.bos_id if self.decoder_start_id is None else self.decoder_start_id

    @classmethod
    def create(cls, **fields: Any) -> ModelConfig:
        """Build and validate a config.

        Raises:
            ValueError: naming the field that is wrong and what it may be.
        """
        try:
            config = msgspec.convert(fields, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"model config: {error}") from None
        config.check()
        return config

    @classmethod
    def from_json(cls, data: bytes, where: str = "config.json") -> ModelConfig:
        """Decode and validate; ``where`` is named in the ValueError."""
        try:
            config = msgspec.json.decode(data, type=cls)
            config.check()
        except (msgspec.DecodeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None
        return config

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def replace(self, **changes: Any) -> ModelConfig:
        config = msgspec.structs.replace(self, **changes)
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError with a sentence if the fields do not fit together."""
        for name in ("vocab_size", "d_model", "n_heads", "d_ff", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model ({self.d_model}) must be a multiple of n_heads ({self.n_heads})")
        if self.kv_heads < 1 or self.n_heads % self.kv_heads:
            raise ValueError(f"n_heads ({self.n_heads}) must be a multiple of n_kv_heads ({self.kv_heads})")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head size, not {self.head_dim}")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"sinusoidal positions need an even d_model, not {self.d_model}")
        has_encoder, has_decoder = self.n_encoder_layers > 0, self.n_decoder_layers > 0
        wanted = {
            "encoder-decoder": (True, True),
            "decoder-only": (False, True),
            "encoder-only": (True, False),
        }
        if (has_encoder, has_decoder) != wanted[self.family]:
            encoder, decoder = ("of at least 1" if needed else "of 0" for needed in wanted[self.family])
            raise ValueError(
                f"{self.family} needs n_encoder_layers {encoder} and n_decoder_layers {decoder}, "
                f"not {self.n_encoder_layers} and {self.n_decoder_layers}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout}")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(f"sliding_window must be at least 1, not {self.sliding_window}")
        for name in ("pad_id", "bos_id", "eos_id", "mask_id", "unk_id", "decoder_start_id"):
            self._check_ids(name, getattr(self, name))
        for name in ("eos_ids", "source_prefix", "target_prefix", "banned_ids"):
            self._check_ids(name, *getattr(self, name))

    def _check_ids(self, name: str, *values: int | None) -> None:
        for value in values:
            if value is not None and not 0 <= value < self.vocab_size:
                raise ValueError(f"{name} must lie in [0, {self.vocab_size}), not {value}")
