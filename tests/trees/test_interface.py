"""The names and parameters that users of BitTransformerLM know."""

import inspect

import pytest

import bit_transformer
from bit_transformer import BitTransformerLM

EXPORTS = [
    "BitTransformerLM",
    "text_to_bits",
    "bits_to_text",
    "compress_bits",
    "decompress_bits",
    "pack_bits",
    "unpack_bits",
    "configure_optimizer",
    "train_loop",
    "hil_safe_inference",
    "expand_model",
]
CONFIGURATION = [
    "d_model",
    "nhead",
    "num_layers",
    "dim_feedforward",
    "max_seq_len",
    "lambda_K",
    "lambda_C",
    "lambda_S",
    "reversible",
    "use_checkpoint",
    "use_act",
    "act_threshold",
    "chunk_size",
    "overlap",
    "full_attn_logging",
]
TRAINING = ["epochs", "extra_steps", "compress_prob", "direct_prob", "log", "forward_kwargs"]


@pytest.mark.parametrize("name", EXPORTS)
def test_the_package_exports(name):
    assert callable(getattr(bit_transformer, name))
    assert name in bit_transformer.__all__


def test_the_package_exports_nothing_that_is_not_there():
    assert [name for name in bit_transformer.__all__ if not hasattr(bit_transformer, name)] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        bit_transformer.no_such_name  # noqa: B018


def test_the_model_takes_its_parameters_by_position():
    assert list(inspect.signature(BitTransformerLM).parameters)[: len(CONFIGURATION)] == CONFIGURATION


def test_the_model_keeps_what_it_was_given():
    given = {"d_model": 16, "nhead": 2, "lambda_K": 0.5, "chunk_size": 4, "overlap": 2, "full_attn_logging": False}
    config = BitTransformerLM(**given).config
    assert set(CONFIGURATION) <= set(config)
    assert {name: config[name] for name in given} == given


@pytest.mark.parametrize("name", TRAINING)
def test_train_loop_takes_the_keyword(name):
    assert inspect.signature(bit_transformer.train_loop).parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", ["forward_compressed", "double_width", "double_layers", "double_length"])
def test_the_model_has_the_method(name):
    assert callable(getattr(BitTransformerLM, name))


def test_the_forward_is_causal_unless_asked_otherwise():
    assert inspect.signature(BitTransformerLM.forward).parameters["causal"].default is True
