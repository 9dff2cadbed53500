"""The three Transformers: encoder-decoder, decoder-only, encoder-only.

Letters: B batch, S source tokens, T target tokens, D d_model, V vocabulary.

``encode`` and ``decode`` return hidden states; ``project`` turns hidden states into logits, so that
nobody pays for logits that are not looked at. Masks given from outside are (B, S), True where a
token is real.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfm.core.attention import causal_mask, padding_mask
from tfm.core.config import ModelConfig
from tfm.core.kv_cache import KVCache
from tfm.core.layers import Context, DecoderLayer, Dropout, EncoderLayer, activate, make_norm
from tfm.core.positions import AbsolutePositions, Rotary, RotaryPositions


def _table(n_rows: int, width: int) -> nn.Embedding:
    """An embedding whose numbers come later, from ``initialise`` or from a checkpoint.

    nn.Embedding would draw some first: in vain, and on the meta device, where assemble_model works,
    the draw makes torch import its compiler, which takes seconds.
    """
    table: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(n_rows, width), freeze=False)  # type: ignore[no-untyped-call]
    return table


class Embedding(nn.Module):
    """Token ids to vectors: look up, scale, add positions and token types, normalise, drop out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = _table(config.vocab_size, config.d_model)
        self.scale = math.sqrt(config.d_model) if config.scale_embeddings else 1.0
        self.positions = None if config.positions == "rotary" else AbsolutePositions(config)
        self.types = _table(config.n_token_types, config.d_model) if config.n_token_types else None
        self.norm = make_norm(config) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout)

    def forward(self, ids_BT: Tensor, positions_BT: Tensor, types_BT: Tensor | None = None) -> Tensor:
        """(B, T) ids, (B or 1, T) positions -> (B, T, D)."""
        x_BTD: Tensor = self.tokens(ids_BT)
        if self.scale != 1.0:
            x_BTD = x_BTD * self.scale
        if self.types is not None:
            x_BTD = x_BTD + self.types(torch.zeros_like(ids_BT) if types_BT is None else types_BT)
        if self.positions is not None:
            x_BTD = self.positions(x_BTD, positions_BT)
        if self.norm is not None:
            x_BTD = self.norm(x_BTD)
        dropped: Tensor = self.dropout(x_BTD)
        return dropped


class Head(nn.Module):
    """Hidden states to logits; the projection may be the embedding table itself (tied)."""

    def __init__(self, config: ModelConfig, embedding: Embedding) -> None:
        super().__init__()
        self.activation = config.activation
        self.transform = nn.Linear(config.d_model, config.d_model) if config.mlm_transform else None
        self.norm = make_norm(config) if config.mlm_transform else None
        self.projection = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_output:
            self.projection.weight = embedding.tokens.weight
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.output_bias else None

    def features(self, hidden: Tensor) -> Tensor:
        """What the projection is applied to: (..., D) -> (..., D)."""
        if self.transform is not None and self.norm is not None:
            hidden = self.norm(activate(self.transform(hidden), self.activation))
        return hidden

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return F.linear(self.features(hidden), self.projection.weight, self.bias)


class Transformer(nn.Module):
    """What all three families share: config, positions, initial weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.rotary = RotaryPositions(config) if config.positions == "rotary" else None

    def _rotary(self, positions_BT: Tensor) -> Rotary | None:
        return None if self.rotary is None else self.rotary(positions_BT)

    def _final_norm(self) -> nn.Module:
        wanted = self.config.final_norm and self.config.norm_position == "pre"
        return make_norm(self.config) if wanted else nn.Identity()

    def initialise(self) -> None:
        """Random weights from torch's current generator.

        ================= =====================================================================
        linear weights     Xavier uniform (Glorot and Bengio 2010)
        embeddings         normal, deviation D^-0.5, so that a scaled embedding and a tied
                           output projection both start with unit variance
        learned positions  normal, deviation 0.02
        biases             0
        norms              weight 1, bias 0
        ================= =====================================================================
        """
        tied = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        for module in self.modules():
            if isinstance(module, nn.Linear) and id(module.weight) not in tied:
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.d_model**-0.5)
            elif isinstance(module, AbsolutePositions) and isinstance(module.table, nn.Parameter):
                nn.init.normal_(module.table, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class EncoderDecoder(Transformer):
    """Reads a source sentence whole, writes a target sentence token by token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.source_embedding = Embedding(config)
        self.target_embedding = self.source_embedding if config.share_embeddings else Embedding(config)
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_encoder_layers))
        self.encoder_norm = self._final_norm()
        self.decoder_layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.n_decoder_layers))
        self.decoder_norm = self._final_norm()
        self.head = Head(config, self.target_embedding)

    def encode(self, src_BS: Tensor, src_mask_BS: Tensor | None = None) -> Tensor:
        """Source ids to memory: (B, S) -> (B, S, D)."""
        mask = None if src_mask_BS is None else padding_mask(src_mask_BS)
        return _encode(self, self.source_embedding, src_BS, mask)

    def decode(
        self,
        tgt_BT: Tensor,
        memory_BSD: Tensor | None = None,
        src_mask_BS: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Target ids to hidden states: (B, T) -> (B, T, D). Needs a memory or a prepared cache."""
        memory_mask = None if src_mask_BS is None else padding_mask(src_mask_BS)
        return _decode(self, self.target_embedding, tgt_BT, cache, memory_BSD, memory_mask)

    def prepare(self, cache: KVCache, memory_BSD: Tensor, src_mask_BS: Tensor | None = None) -> None:
        """Compute the keys and values of the memory once, for every decoder layer."""
        cache.cross = [layer.cross_attention.keys_values(memory_BSD) for layer in self.decoder_layers]  # type: ignore[union-attr, operator]
        cache.cross_mask = None if src_mask_BS is None else padding_mask(src_mask_BS)

    def project(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        logits: Tensor = self.head(hidden)
        return logits

    def forward(self, src_BS: Tensor, tgt_BT: Tensor, src_mask_BS: Tensor | None = None) -> Tensor:
        """Teacher forcing: logits (B, T, V) for the token after each target token."""
        return self.project(self.decode(tgt_BT, self.encode(src_BS, src_mask_BS), src_mask_BS))


class DecoderOnly(Transformer):
    """Continues a text token by token (GPT-2, Llama, Mistral, Qwen)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = Embedding(config)
        self.decoder_layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.n_decoder_layers))
        self.decoder_norm = self._final_norm()
        self.head = Head(config, self.embedding)

    def decode(self, ids_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Ids to hidden states: (B, T) -> (B, T, D)."""
        return _decode(self, self.embedding, ids_BT, cache)

    def project(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        logits: Tensor = self.head(hidden)
        return logits

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V) for the token after each one."""
        return self.project(self.decode(ids_BT))


class EncoderOnly(Transformer):
    """Reads a text from both sides and fills its masks (BERT)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = Embedding(config)
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_encoder_layers))
        self.encoder_norm = self._final_norm()
        self.head = Head(config, self.embedding)

    def encode(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """Ids to hidden states: (B, T) -> (B, T, D)."""
        mask = None if mask_BT is None else padding_mask(mask_BT)
        return _encode(self, self.embedding, ids_BT, mask, types_BT)

    def project(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        logits: Tensor = self.head(hidden)
        return logits

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) for each token itself."""
        return self.project(self.encode(ids_BT, mask_BT))


Model = EncoderDecoder | DecoderOnly | EncoderOnly
_FAMILIES: dict[str, Callable[[ModelConfig], Model]] = {
    "encoder-decoder": EncoderDecoder,
    "decoder-only": DecoderOnly,
    "encoder-only": EncoderOnly,
}


def build_model(config: ModelConfig) -> Model:
    """A model with random weights (torch.manual_seed makes them repeatable), in training mode."""
    model: Model = _FAMILIES[config.family](config)
    model.initialise()
    return model


def check_shapes(config: ModelConfig, shapes: Mapping[str, torch.Size]) -> Model:
    """The model without its numbers (on the meta device), which these tensors fit.

    Raises:
        ValueError: naming the tensor that is missing, unknown or of the wrong shape.
    """
    with torch.device("meta"):
        model: Model = _FAMILIES[config.family](config)
    wanted = dict(model.named_parameters())
    for name, parameter in wanted.items():
        if name not in shapes:
            raise ValueError(f"tensor {name} is missing")
        if shapes[name] != parameter.shape:
            found, right = list(shapes[name]), list(parameter.shape)
            raise ValueError(f"tensor {name} has shape {found}, but the config asks for {right}")
    unknown = sorted(shapes.keys() - wanted.keys())
    if unknown:
        raise ValueError(f"tensor {unknown[0]} has no place in this architecture")
    return model


def assemble_model(config: ModelConfig, weights: Mapping[str, Tensor]) -> Model:
    """A model made of these very tensors, in evaluation mode; no second copy of them exists meanwhile.

    ``weights`` are named as ``model.named_parameters()`` names them: a shared table stands there once.

    Raises:
        ValueError: naming the tensor that is missing, unknown or of the wrong shape.
    """
    model = check_shapes(config, {name: tensor.shape for name, tensor in weights.items()})
    wanted = dict(model.named_parameters())
    replaced = {id(parameter): nn.Parameter(weights[name]) for name, parameter in wanted.items()}
    device = next(iter(weights.values())).device
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, replaced[id(parameter)])
        if isinstance(module, AbsolutePositions | RotaryPositions):
            module.make_tables(config, device)
    return model.eval()


def _encode(
    model: EncoderDecoder | EncoderOnly,
    embedding: Embedding,
    ids_BS: Tensor,
    mask: Tensor | None,
    types_BS: Tensor | None = None,
) -> Tensor:
    positions = torch.arange(ids_BS.shape[1], device=ids_BS.device)[None]
    rotary = model._rotary(positions)
    x_BSD = embedding(ids_BS, positions, types_BS)
    for layer in model.encoder_layers:
        x_BSD = layer(x_BSD, mask, rotary)
    out: Tensor = model.encoder_norm(x_BSD)
    return out


def _decode(
    model: EncoderDecoder | DecoderOnly,
    embedding: Embedding,
    ids_BT: Tensor,
    cache: KVCache | None,
    memory_BSD: Tensor | None = None,
    memory_mask: Tensor | None = None,
) -> Tensor:
    n_tokens, window = ids_BT.shape[1], model.config.sliding_window
    if cache is not None:
        positions, mask, causal = cache.positions(n_tokens), cache.mask(n_tokens, window), False
    else:
        positions = torch.arange(n_tokens, device=ids_BT.device)[None]
        causal = window is None or n_tokens <= window
        mask = None if causal else causal_mask(n_tokens, window, ids_BT.device)
    context = Context(mask, causal, model._rotary(positions), memory_BSD, memory_mask, cache)
    x_BTD = embedding(ids_BT, positions)
    for layer in model.decoder_layers:
        x_BTD = layer(x_BTD, context)
    out: Tensor = model.decoder_norm(x_BTD)
    return out
