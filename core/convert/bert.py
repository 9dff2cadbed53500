"""BERT (Devlin et al. 2019) with its masked-word head, or the bare encoder that others built upon."""

from __future__ import annotations

from tfm.core.convert.table import Family, Key, Only, Rule, key, module, tensor

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
LAYER, OURS = "bert.encoder.layer.{i}", "encoder_layers.{i}"

KEYS: tuple[Key | Only, ...] = (
    key("vocab_size", "vocab_size"),
    key("hidden_size", "d_model"),
    key("num_hidden_layers", "n_encoder_layers"),
    key("num_attention_heads", "n_heads"),
    key("intermediate_size", "d_ff"),
    key("max_position_embeddings", "max_positions"),
    key("type_vocab_size", "n_token_types", default=2),
    key("hidden_act", "activation", default="gelu", names=ACTIVATIONS),
    key("layer_norm_eps", "norm_eps", default=1e-12),
    key("hidden_dropout_prob", "dropout", default=0.0),
    Only("position_embedding_type", "absolute"),
    Only("is_decoder", False),
    Only("add_cross_attention", False, written=False),
)
FIXED = {
    "family": "encoder-only",
    "positions": "learned",
    "norm": "layernorm",
    "norm_position": "post",
    "embedding_norm": True,
}
ENCODER: tuple[Rule, ...] = (
    tensor("bert.embeddings.word_embeddings.weight", "embedding.tokens.weight"),
    tensor("bert.embeddings.position_embeddings.weight", "embedding.positions.table"),
    tensor("bert.embeddings.token_type_embeddings.weight", "embedding.types.weight"),
    *module("bert.embeddings.LayerNorm", "embedding.norm"),
    *module(f"{LAYER}.attention.self.query", f"{OURS}.self_attention.q_proj"),
    *module(f"{LAYER}.attention.self.key", f"{OURS}.self_attention.k_proj"),
    *module(f"{LAYER}.attention.self.value", f"{OURS}.self_attention.v_proj"),
    *module(f"{LAYER}.attention.output.dense", f"{OURS}.self_attention.out_proj"),
    *module(f"{LAYER}.attention.output.LayerNorm", f"{OURS}.self_residual.norm"),
    *module(f"{LAYER}.intermediate.dense", f"{OURS}.feed_forward.up"),
    *module(f"{LAYER}.output.dense", f"{OURS}.feed_forward.down"),
    *module(f"{LAYER}.output.LayerNorm", f"{OURS}.ff_residual.norm"),
)
HEAD: tuple[Rule, ...] = (
    *module("cls.predictions.transform.dense", "head.transform"),
    *module("cls.predictions.transform.LayerNorm", "head.norm"),
    tensor("cls.predictions.decoder.weight", "head.projection.weight"),
    # Two names of one bias where the output is tied; where it is not, the first is the one that counts.
    tensor("cls.predictions.decoder.bias", "head.bias", also=("cls.predictions.bias",), twice=True),
)
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
IGNORED = ("*embeddings.position_ids", "*pooler.dense.*", "cls.seq_relationship.*")

BERT = Family(
    model_type="bert",
    architecture="BertForMaskedLM",
    accepted=("BertForPreTraining",),
    prefix="bert.",
    keys=(*KEYS, key("tie_word_embeddings", "tie_output", default=True)),
    fixed={**FIXED, "mlm_transform": True, "output_bias": True},
    rules=(*ENCODER, *HEAD),
    renamed=RENAMED,
    ignored=IGNORED,
)

# A BERT without a head knows hidden states alone. Its config is the same but for the architecture; its
# output is taken as tied so that there is nothing to store, and it has no mask id, so nobody asks it.
BERT_ENCODER = Family(
    model_type="bert",
    architecture="BertModel",
    prefix="bert.",
    keys=KEYS,
    fixed={**FIXED, "mlm_transform": False, "output_bias": False, "tie_output": True},
    rules=ENCODER,
    renamed=RENAMED,
    ignored=(*IGNORED, "cls.*"),
)
