"""Speech encoders of transformers: the real classes, small and with random weights, against plain calls of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CanaryConfig,
    CanaryDecoderConfig,
    CanaryForConditionalGeneration,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    LasrCTCConfig,
    LasrEncoder,
    LasrEncoderConfig,
    LasrFeatureExtractor,
    LasrForCTC,
    MoonshineConfig,
    MoonshineModel,
    ParakeetCTCConfig,
    ParakeetEncoder,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForRNNT,
    ParakeetForTDT,
    ParakeetRNNTConfig,
    ParakeetTDTConfig,
    SeamlessM4TFeatureExtractor,
    SEWConfig,
    SEWDConfig,
    SEWDModel,
    SEWModel,
    UniSpeechConfig,
    UniSpeechModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerModel,
    Wav2Vec2FeatureExtractor,
)

from audiobat.zoo.adapters.windows import WindowedEncoder
from audiobat.zoo.load import load_encoder
from tests.foreign_encoders import check_rules, features, noise, save

SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
SPEECH = {**SIZE, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
SEVEN = {"conv_dim": (8,) * 7}
MOONSHINE = {
    **{"hidden_size": 16, "intermediate_size": 32, "vocab_size": 40},
    **{"encoder_num_hidden_layers": 3, "encoder_num_attention_heads": 2},
    **{"decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2},
}
PARAKEET = ParakeetEncoderConfig(**SIZE, subsampling_conv_channels=8)
JOINT = {"vocab_size": 12, "blank_token_id": 11, "pad_token_id": 11, "decoder_hidden_size": 8, "num_decoder_layers": 1}
DECODER = {**SIZE, "num_hidden_layers": 1, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 12}
LASR = LasrEncoderConfig(**SIZE, subsampling_conv_channels=8)
SAMPLES = Wav2Vec2FeatureExtractor
KINDS: dict[str, tuple[Any, Any, Any, float]] = {  # model, its feature extractor, seconds a token
    "wav2vec2-conformer": (
        lambda: Wav2Vec2ConformerModel(Wav2Vec2ConformerConfig(**SPEECH, conv_dim=(8,) * 7)),
        SAMPLES(do_normalize=True),
        0.02,
    ),
    "data2vec-audio": (
        lambda: Data2VecAudioModel(Data2VecAudioConfig(**SPEECH, conv_dim=(8,) * 7, conv_pos_kernel_size=5)),
        SAMPLES(do_normalize=True),
        0.02,
    ),
    "unispeech": (lambda: UniSpeechModel(UniSpeechConfig(**SPEECH, **SEVEN)), SAMPLES(do_normalize=True), 0.02),
    "unispeech-sat": (
        lambda: UniSpeechSatModel(UniSpeechSatConfig(**SPEECH, **SEVEN, do_stable_layer_norm=True)),
        SAMPLES(do_normalize=False),
        0.02,
    ),
    "sew": (lambda: SEWModel(SEWConfig(**SPEECH, conv_dim=(8,) * 13)), SAMPLES(do_normalize=True), 0.04),
    "sew-d": (lambda: SEWDModel(SEWDConfig(**SPEECH, conv_dim=(8,) * 13)), SAMPLES(do_normalize=False), 0.04),
    "moonshine": (lambda: MoonshineModel(MoonshineConfig(**MOONSHINE)), SAMPLES(do_normalize=False), 0.024),
    "wav2vec2-bert": (
        lambda: Wav2Vec2BertModel(Wav2Vec2BertConfig(**SIZE)),
        SeamlessM4TFeatureExtractor(padding_value=1.0),
        0.02,
    ),
    "parakeet_encoder": (lambda: ParakeetEncoder(PARAKEET), ParakeetFeatureExtractor(), 0.08),
    "lasr_encoder": (lambda: LasrEncoder(LASR), LasrFeatureExtractor(), 0.04),
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_features_are_transformers_own_clip_by_clip(kind: str, tmp_path: Path):
    make, extractor, seconds = KINDS[kind]
    model = make()
    assert model.config.model_type == kind
    encoder = load_encoder(f"hf:{save(tmp_path, model, extractor)}")
    assert isinstance(encoder, WindowedEncoder)
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (16_000, 16, 3)
    clip = 3 * noise(1.0)[0] + 0.02
    edge = encoder.grid.span + 5 * encoder.grid.hop  # with its sixth token, and one sample before it
    clips = [clip, clip[: edge - 1], clip[:edge]]
    found = check_rules(encoder, clips)
    torch.testing.assert_close(found.frame_times, torch.arange(found.grid[0]) * seconds)
    whole = type(model).from_pretrained(tmp_path).eval()
    plain = whole.encoder if kind == "moonshine" else whole
    for i, one in enumerate(clips):
        given = extractor(one.numpy(), sampling_rate=16_000, return_tensors="pt")
        inputs = given[extractor.model_input_names[0]]
        mine = encoder.inputs(one[None])
        torch.testing.assert_close(mine, inputs[:, : mine.shape[1]], atol=1e-3, rtol=1e-3)
        output = plain(**given, output_hidden_states=True)
        wanted = torch.stack(output.hidden_states[1:])[:, 0]  # [L, T, D]
        own = {"wav2vec2-bert": given, "parakeet_encoder": output}.get(kind)
        count = wanted.shape[1] if own is None else int(own["attention_mask"].sum())
        assert found.valid[i].sum() == count
        torch.testing.assert_close(found.patch_tokens[:, i, :count], wanted[:, :count], atol=2e-3, rtol=2e-3)
    assert found.valid.sum(1)[1:].tolist() == [5, 6]
    for samples in (1, 170, 410):  # of 170 samples Parakeet's extractor makes NaN, and of 410 that of w2v-BERT
        brief = features(encoder, [clip[:samples]])
        assert brief.grid == (1, 1)
        assert brief.patch_tokens.isfinite().all()


RECOGNISERS: dict[str, tuple[Any, Any]] = {
    "parakeet_ctc": (
        lambda: ParakeetForCTC(ParakeetCTCConfig(vocab_size=12, pad_token_id=11, encoder_config=PARAKEET)),
        ParakeetFeatureExtractor(),
    ),
    "parakeet_rnnt": (
        lambda: ParakeetForRNNT(ParakeetRNNTConfig(**JOINT, encoder_config=PARAKEET)),
        ParakeetFeatureExtractor(),
    ),
    "parakeet_tdt": (
        lambda: ParakeetForTDT(ParakeetTDTConfig(**JOINT, encoder_config=PARAKEET)),
        ParakeetFeatureExtractor(),
    ),
    "canary": (
        lambda: CanaryForConditionalGeneration(
            CanaryConfig(vocab_size=12, encoder_config=PARAKEET, decoder_config=CanaryDecoderConfig(**DECODER))
        ),
        ParakeetFeatureExtractor(),
    ),
    "lasr_ctc": (
        lambda: LasrForCTC(LasrCTCConfig(vocab_size=12, pad_token_id=0, encoder_config=LASR)),
        LasrFeatureExtractor(),
    ),
}


@pytest.mark.parametrize("kind", RECOGNISERS)
def test_the_encoder_in_a_recogniser_is_found(kind: str, tmp_path: Path):
    make, extractor = RECOGNISERS[kind]
    model = make()
    assert model.config.model_type == kind
    encoder = load_encoder(f"hf:{save(tmp_path, model, extractor)}")
    inner = model.model.encoder if kind == "canary" else model.encoder
    for name, tensor in inner.state_dict().items():
        assert torch.equal(encoder.state_dict()[f"model.{name}"], tensor)
    assert features(encoder, noise(0.5)).grid[0] > 5
