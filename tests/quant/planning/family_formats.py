"""What the presets make of real models with their default settings, written by hand."""

from __future__ import annotations

FP8 = "float8_e4m3fn"

#: Per model: its preset, and regular expressions over whole layer names that say which layers get
#: which format with the default settings.
EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "flux1-dev": ("flux1", {
        FP8: r".*(_mod|modulation)\.lin|double_blocks\.0\..*|single_blocks\.37\..*",
        "nvfp4": r"double_blocks\..*_(attn\.(qkv|proj)|mlp\.[02])|single_blocks\..*\.linear[12]",
    }),
    "flux2-dev": ("flux2", {
        FP8: r"double_blocks\.0\..*|single_blocks\.47\..*",
        "nvfp4": r"double_blocks\..*_(attn\.(qkv|proj)|mlp\.[02])|single_blocks\..*\.linear[12]",
    }),
    "chroma": ("chroma", {
        FP8: r"double_blocks\.0\..*|single_blocks\.37\..*",
        "nvfp4": r"double_blocks\..*_(attn\.(qkv|proj)|mlp\.[02])|single_blocks\..*\.linear[12]",
    }),
    "z-image": ("z-image", {
        FP8: r"layers\.(0|29)\.(attention|feed_forward)\..*",
        "nvfp4": r"layers\..*\.(attention|feed_forward)\..*",
    }),
    "ltx-2": ("ltx-2", {
        "bf16": r"transformer_blocks\.([01]|46|47)\..*",
        "nvfp4": r"transformer_blocks\..*",
    }),
    "hunyuan-video": ("hunyuan-video", {
        FP8: r"(double|single)_blocks.*(_mod|modulation)\.lin|double_blocks\.0\..*|"
             r"single_blocks\.39\..*",
        "nvfp4": r"(double|single)_blocks\..*",
    }),
    "hunyuan-video-1.5": ("hunyuan-video-1.5", {
        FP8: r"double_blocks.*_mod\.lin|double_blocks\.([01]|52|53)\..*",
        "nvfp4": r"double_blocks\..*",
    }),
    "sdxl": ("sdxl", {
        FP8: r"(input_blocks\.[45]|output_blocks\.[345])\.1\.transformer_blocks\..*|"
             r".*\.attn2\.to_[kv]",
        "nvfp4": r".*\.transformer_blocks\..*",
    }),
    "sd1.5": ("sd1.5", {
        FP8: r"(input_blocks\.[12]|output_blocks\.(9|10|11))\.1\.transformer_blocks\..*|"
             r".*\.attn2\.to_[kv]",
        "nvfp4": r".*\.transformer_blocks\..*",
    }),
    "t5-xxl": ("t5-xxl", {
        FP8: r"encoder\.block\.(0|23)\..*|.*\.(SelfAttention\.v|DenseReluDense\.wo)",
        "nvfp4_w4a16": r"encoder\.block\..*",
    }),
    "umt5-xxl": ("t5-xxl", {
        FP8: r"encoder\.block\.(0|23)\..*|.*\.(SelfAttention\.v|DenseReluDense\.wo)",
        "nvfp4_w4a16": r"encoder\.block\..*",
    }),
    "qwen2.5-vl-7b": ("qwen2.5-vl", {
        FP8: r"model\.layers\.(0|27)\..*|model\..*\.(v|down)_proj",
        "nvfp4_w4a16": r"model\.layers\..*",
    }),
    # WAN with more inputs
    **dict.fromkeys(("wan2.2-animate", "wan2.2-s2v", "wan-dancer", "wan-scail", "wan-scail2",
                     "wan2.1-camera", "wan2.2-camera", "wan2.1-fun-control",
                     "wan2.1-fun-control-1.0", "wan2.2-fun-control"),
                    ("wan-conditioned", {
        FP8: r"blocks\.([01]|38|39)\..*|blocks\.\d+\.((self|cross)_attn\.v(_img)?|ffn\.2)",
        "nvfp4": r"blocks\.\d+\..*",
    })),
    "wan-humo": ("wan-conditioned", {
        FP8: r"blocks\.([01]|38|39)\..*|blocks\..*(attn\.v|ffn\.2)",
        "nvfp4": r"blocks\.\d+\..*",
    }),
    "wan2.1-vace-14b": ("wan-conditioned", {
        FP8: r"blocks\.([01]|38|39)\..*|(vace_)?blocks\.\d+\.((self|cross)_attn\.v|ffn\.2)",
        "nvfp4": r"(vace_)?blocks\.\d+\.(self_attn|cross_attn|ffn)\..*",
    }),
    # image models
    "longcat-image": ("flux1", {
        FP8: r".*(_mod|modulation)\.lin|double_blocks\.0\..*|single_blocks\.19\..*",
        "nvfp4": r"double_blocks\..*_(attn\.(qkv|proj)|mlp\.[02])|single_blocks\..*\.linear[12]",
    }),
    "hunyuan-image-2.1": ("hunyuan-video", {
        FP8: r"(double|single)_blocks.*(_mod|modulation)\.lin|double_blocks\.0\..*|"
             r"single_blocks\.39\..*",
        "nvfp4": r"(double|single)_blocks\..*",
    }),
    "krea2": ("krea2", {
        FP8: r"blocks\.(0|27)\..*|blocks\.\d+\.attn\.(gate|wv)",
        "nvfp4": r"blocks\.\d+\.(attn\.w[qko]|mlp\.(gate|up|down))",
    }),
    "ideogram4": ("ideogram4", {
        FP8: r"layers\.(0|33)\.(attention|feed_forward)\..*",
        "nvfp4": r"layers\.\d+\.(attention|feed_forward)\..*",
    }),
    "anima": ("cosmos-predict2", {
        "bf16": r"blocks\.(0|27)\.(self_attn|cross_attn|mlp)\..*",
        FP8: r"blocks\.\d+\.(.*\.v_proj|mlp\.layer2)",
        "nvfp4": r"blocks\.\d+\.((self|cross)_attn\.(q|k|output)_proj|mlp\.layer1)",
    }),
    "cosmos-predict2-t2i-14b": ("cosmos-predict2", {
        "bf16": r"blocks\.(0|35)\.(self_attn|cross_attn|mlp)\..*",
        FP8: r"blocks\.\d+\.(.*\.v_proj|mlp\.layer2)",
        "nvfp4": r"blocks\.\d+\.((self|cross)_attn\.(q|k|output)_proj|mlp\.layer1)",
    }),
    "hidream-i1": ("hidream-i1", {
        FP8: r".*adaLN_modulation\.1(?<!final_layer\.adaLN_modulation\.1)|"
             r"double_stream_blocks\.0\..*|single_stream_blocks\.31\..*",
        "nvfp4_w4a16": r".*_stream_blocks\.\d+\.block\.ff_i\.experts\..*",
        "nvfp4": r".*_stream_blocks\.\d+\.block\.(attn1\.to_.*|ff_[it]\..*)",
    }),
    "hidream-o1": ("hidream-o1", {
        FP8: r"language_model\.layers\.([01]|34|35)\..*|language_model.*\.(v|down)_proj",
        "nvfp4": r"language_model\.layers\..*",
    }),
    "omnigen2": ("omnigen2", {
        # the width of 2520 is no multiple of 32
        FP8: r"layers\.(0|31)\.(attn|feed_forward).*|layers\.\d+\.(attn\..*|.*linear_[13])",
        "nvfp4": r"layers\.\d+\.feed_forward\.linear_2",
    }),
    "boogu": ("omnigen2", {
        FP8: r"(double_stream_layers\.0|single_stream_layers\.31)\.(?!.*norm\d\.linear).*",
        "nvfp4": r"(double|single)_stream_layers\.\d+\.(?!.*norm\d\.linear).*",
    }),
    "ernie-image": ("ernie-image", {
        FP8: r"layers\.(0|35)\..*|layers\.\d+\.self_attention\.to_v",
        "nvfp4": r"layers\.\d+\..*",
    }),
    "sd3.5-large": ("sd3.5", {
        FP8: r"joint_blocks\..*adaLN_modulation\.1|joint_blocks\.(0|37)\..*",
        "nvfp4": r"joint_blocks\..*",
    }),
    "sd3.5-medium": ("sd3.5", {
        FP8: r"joint_blocks\..*adaLN_modulation\.1|joint_blocks\.(0|23)\..*",
        "nvfp4": r"joint_blocks\..*",
    }),
    # video models
    "ltx-2.3": ("ltx-2", {
        "bf16": r"transformer_blocks\.([01]|46|47)\.(?!.*to_gate_logits).*",
        "nvfp4": r"transformer_blocks\.(?!.*to_gate_logits).*",
    }),
    "minimax-h3": ("minimax-h3", {
        FP8: r"blocks\.([01]|48|49)\..*|blocks\.\d+\.adaln_proj\.linear",
        "nvfp4": r"blocks\.\d+\..*",
    }),
    "minimax-h3-curve": ("minimax-h3", {
        FP8: r"blocks\.([01]|48|49)\.(attn|mlp)\..*",
        "nvfp4": r"blocks\.\d+\.(attn|mlp)\..*",
    }),
    **{f"kandinsky5-{kind}": ("kandinsky5", {
        FP8: rf"text_transformer_blocks\..*|visual_transformer_blocks\.(0|{last})\..*|"
             r"visual_transformer_blocks\..*(to_value|visual_modulation\.out_layer)",
        "nvfp4": r"visual_transformer_blocks\..*",
    }) for kind, last in (("lite", 31), ("pro", 59), ("image", 49))},
    # text encoders
    **{model: ("language-models", {
        FP8: rf"model\.(language_model\.)?layers\.(0|{last})\..*|model\..*layers.*\.(v|down)_proj",
        "nvfp4_w4a16": r"model\.(language_model\.)?layers\..*",
    }) for model, last in (("qwen3-4b", 35), ("qwen3-8b", 35), ("qwen3-vl-8b", 35),
                           ("gemma3-12b", 47), ("mistral3-24b", 39), ("llama3-8b", 31))},
    "qwen3.5-2b": ("language-models", {
        FP8: r"model\.language_model\.layers\.(0|23)\.(?!.*in_proj_[ab]$).*|"
             r"model\.language_model.*\.(v|down)_proj",
        "nvfp4_w4a16": r"model\.language_model\.layers\.(?!.*in_proj_[ab]$).*",
    }),
}  # fmt: skip
