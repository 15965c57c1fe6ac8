//! Model configurations: the fixtures' files, and properties that hold for every text.

use proptest::prelude::*;
use webjepa::config::{LEVELS, LeWmConfig, ModelConfig, Positions, PredictorConfig, System};

#[test]
fn the_fixtures_have_the_sizes_that_they_say() {
    let read = |folder: &str| {
        let path = format!(
            "{}/tests/fixtures/{folder}/config.json",
            env!("CARGO_MANIFEST_DIR")
        );
        ModelConfig::from_any_json(&std::fs::read_to_string(path).unwrap())
    };
    let preset = ModelConfig {
        predictor: None,
        ..ModelConfig::preset("vit-tiny/16@224").unwrap()
    };
    assert_eq!(read("ijepa_ti16"), Ok(preset));
    let tiny = read("ijepa_tiny_hf").unwrap();
    assert_eq!(
        (tiny.grid(), tiny.hidden_size, tiny.layers, tiny.heads),
        ([1, 4, 4], 24, 2, 3)
    );
    let clips = read("vjepa2_tiny_hf").unwrap();
    let predictor = clips.predictor.as_ref().unwrap();
    assert_eq!(
        (clips.system, clips.grid(), clips.head_dim(), clips.tubelet),
        (System::VJepa2, [2, 4, 4], 32, 2)
    );
    assert_eq!(
        (
            predictor.hidden_size,
            predictor.heads,
            predictor.mask_tokens,
            predictor.output_size
        ),
        (40, 2, 10, 64)
    );
    let pan = read("vjepa2_pan").unwrap();
    assert_eq!(
        (pan.grid(), pan.layers, pan.hidden_size),
        ([4, 8, 8], 6, 192)
    );
    for config in [clips, pan] {
        let text = config.to_hugging_face("float32").to_string();
        assert_eq!(ModelConfig::from_hf_json(&text), Ok(config));
    }
}

/// A predictor's width in heads, layers, heads, MLP width, mask tokens, and whether it sees every level.
type Sizes = (usize, usize, usize, usize, usize, bool);

fn predictor(system: System, width: usize, sizes: Sizes) -> PredictorConfig {
    let (per_head, layers, heads, mlp_hidden, mask_tokens, every_level) = sizes;
    let newest = system == System::VJepa21;
    let levels = if newest && every_level { LEVELS } else { 1 };
    PredictorConfig {
        hidden_size: 8 * per_head * heads,
        layers,
        heads,
        mlp_hidden,
        mask_tokens: if system == System::IJepa {
            1
        } else {
            mask_tokens
        },
        levels,
        output_size: levels * width,
        actions: None,
    }
}

fn configs() -> impl Strategy<Value = ModelConfig> {
    let encoder = (
        1usize..9,
        1usize..9,
        1usize..33,
        1usize..20,
        4usize..9,
        1usize..9,
        1usize..500,
    );
    let sizes = (
        1usize..20,
        1usize..5,
        1usize..9,
        1usize..500,
        1usize..12,
        any::<bool>(),
    );
    let rest = (
        1usize..5,
        any::<bool>(),
        any::<bool>(),
        1e-12f64..1.0,
        proptest::option::of(sizes),
        (0usize..5, 1usize..4, 1usize..4, 1usize..40),
    );
    (encoder, rest).prop_map(
        |(encoder, (channels, qkv_bias, learned, layer_norm_eps, sizes, time))| {
            let (rows, columns, patch_size, width, layers, heads, mlp_hidden) = encoder;
            let (system, tubelet, steps, side) = time;
            let system = [
                System::IJepa,
                System::VJepa,
                System::VJepa2,
                System::VJepa21,
                System::LeWm,
            ][system];
            let of_actions = system == System::LeWm;
            let video = system != System::IJepa && !of_actions;
            let tubelet = if video { tubelet } else { 1 };
            let hidden_size = 8 * width * heads;
            ModelConfig {
                system,
                image_size: [rows * patch_size, columns * patch_size],
                patch_size,
                channels,
                frames: if video { steps * tubelet } else { 1 },
                tubelet,
                hidden_size,
                layers,
                heads,
                mlp_hidden,
                layer_norm_eps,
                qkv_bias,
                positions: match system {
                    System::IJepa if learned => Positions::Learned,
                    System::IJepa | System::VJepa => Positions::Sincos,
                    System::VJepa2 | System::VJepa21 => Positions::Rope,
                    System::LeWm => Positions::Learned,
                },
                rope_grid: (system == System::VJepa21).then_some(side),
                predictor: sizes
                    .filter(|_| !of_actions)
                    .map(|sizes| predictor(system, hidden_size, sizes)),
                lewm: of_actions.then(|| LeWmConfig::published(side, hidden_size)),
            }
        },
    )
}

/// Texts that are nearly configurations: the keys of both formats with values of every kind.
fn nearly_configs() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "imageSize",
        "patchSize",
        "channels",
        "frames",
        "tubelet",
        "hiddenSize",
        "layers",
        "heads",
        "mlpRatio",
        "positions",
        "predictor",
        "model_type",
        "image_size",
        "patch_size",
        "num_channels",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "layer_norm_eps",
        "qkv_bias",
        "system",
        "ropeGrid",
        "crop_size",
        "frames_per_clip",
        "tubelet_size",
        "pred_hidden_size",
    ]);
    let values = prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        (0u64..100).prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        "[ -~]{0,12}",
        prop::sample::select(vec![
            "null",
            "true",
            "\"ijepa\"",
            "\"gelu\"",
            "\"rope\"",
            "\"vjepa2\"",
            "\"vjepa2.1\"",
            "[8,8]",
            "{}",
            "{\"heads\":2}"
        ])
        .prop_map(String::from),
    ];
    prop::collection::btree_map(keys, values, 0..14).prop_map(|fields| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(key, value)| format!("\"{key}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

/// Whatever the text, an error or a configuration whose every derived size can be computed.
fn read_every_way(text: &str) {
    let readers = [
        ModelConfig::from_any_json,
        ModelConfig::from_hf_json,
        ModelConfig::from_json,
        ModelConfig::preset,
    ];
    for config in readers.iter().filter_map(|read| read(text).ok()) {
        assert!(config.tokens() > 0 && config.head_dim() > 0 && config.parameter_count() > 0);
        assert_eq!(config.grid_for(config.image_size), Ok(config.grid()));
        assert_eq!(
            config.predictor_parameter_count() > 0,
            config.predictor.is_some()
        );
    }
}

proptest! {
    #[test]
    fn a_written_configuration_reads_as_the_same(config in configs()) {
        prop_assert_eq!(config.validate(), Ok(()));
        let text = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(ModelConfig::from_json(&text), Ok(config.clone()));
        prop_assert_eq!(ModelConfig::from_any_json(&text), Ok(config));
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        read_every_way(&text);
    }

    #[test]
    fn nothing_that_is_nearly_a_configuration_panics(text in nearly_configs()) {
        read_every_way(&text);
    }
}
