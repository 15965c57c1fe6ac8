//! Checkpoints end to end: every published layout, the fixtures, and what must be refused.

use std::{collections::BTreeMap, io::Cursor};

use half::{bf16, f16};
use proptest::prelude::*;
use webjepa::{
    Error, Result,
    checkpoint::{
        Assembler, Dtype, EncoderChoice, File, Header, PREDICTOR, Parameter, Piece, Plan,
        Selection, Slot, TensorData, assemble, parameters, predictor_parameters, safetensors,
    },
    config::ModelConfig,
};

/// A tensor of a file in the making.
#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

const QKV: [[&str; 3]; 2] = [
    [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ],
    ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
];

/// The same rules as in the library, written the other way round: by replacing text.
fn hf_name(name: &str, in_memory: bool) -> String {
    let tables: [&[(&str, &str)]; 2] = [
        &[
            ("blocks.", "encoder.layer."),
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ],
        &[("blocks.", "layers."), ("attn.proj", "attention.o_proj")],
    ];
    let common = [
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("pos_embed", "embeddings.position_embeddings"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ];
    let name = match name.strip_prefix("norm.") {
        Some(kind) => format!("layernorm.{kind}"),
        None => name.to_string(),
    };
    let replace = |name: String, &(from, to): &(&str, &str)| name.replace(from, to);
    common
        .iter()
        .chain(tables[usize::from(in_memory)])
        .fold(name, replace)
}

fn config(text: &str) -> ModelConfig {
    ModelConfig::from_json(text).unwrap()
}

fn tiny() -> ModelConfig {
    config(
        r#"{"imageSize":[16,24],"patchSize":8,"channels":2,"hiddenSize":8,"layers":2,"heads":2,
            "predictor":{"hiddenSize":4,"layers":1,"heads":1}}"#,
    )
}

/// Every element of every parameter is another number that all three types hold exactly.
fn value(parameter: usize, element: usize) -> f32 {
    ((parameter * 31 + element * 7) % 255) as f32 / 64.0 - 2.0
}

fn encode(dtype: Dtype, values: impl Iterator<Item = f32>) -> Vec<u8> {
    match dtype {
        Dtype::F16 => values
            .flat_map(|value| f16::from_f32(value).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .flat_map(|value| bf16::from_f32(value).to_le_bytes())
            .collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    }
}

fn original(parameters: &[Parameter], prefix: &str, dtype: Dtype) -> Vec<Tensor> {
    let tensor = |(index, parameter): (usize, &Parameter)| Tensor {
        name: format!("{prefix}{}", parameter.name),
        dtype,
        shape: parameter.shape.clone(),
        data: encode(
            dtype,
            (0..parameter.shape.iter().product()).map(|element| value(index, element)),
        ),
    };
    parameters.iter().enumerate().map(tensor).collect()
}

fn hugging_face(
    parameters: &[Parameter],
    prefix: &str,
    in_memory: bool,
    dtype: Dtype,
) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    for tensor in original(parameters, "", dtype) {
        if !tensor.name.contains("attn.qkv") {
            tensors.push(Tensor {
                name: format!("{prefix}{}", hf_name(&tensor.name, in_memory)),
                ..tensor
            });
            continue;
        }
        let shape: Vec<usize> = [&[tensor.shape[0] / 3], &tensor.shape[1..]].concat();
        for (part, data) in QKV[usize::from(in_memory)]
            .iter()
            .zip(tensor.data.chunks(tensor.data.len() / 3))
        {
            let name = format!(
                "{prefix}{}",
                hf_name(&tensor.name.replace("attn.qkv", part), in_memory)
            );
            tensors.push(Tensor {
                name,
                dtype,
                shape: shape.clone(),
                data: data.to_vec(),
            });
        }
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

fn write(tensors: &[Tensor]) -> Vec<u8> {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|tensor| TensorData {
            name: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
            data: &tensor.data,
        })
        .collect();
    let mut file = Vec::new();
    safetensors::write(
        &mut file,
        &tensors,
        &BTreeMap::from([("format".into(), "pt".into())]),
    )
    .unwrap();
    file
}

fn plan(files: &[Vec<u8>], config: &ModelConfig, selection: Selection) -> Result<Plan> {
    let file = |(index, bytes): (usize, &Vec<u8>)| {
        Ok(File {
            name: format!("{index}.safetensors"),
            header: Header::of(bytes)?,
        })
    };
    Plan::new(
        &files
            .iter()
            .enumerate()
            .map(file)
            .collect::<Result<Vec<_>>>()?,
        config,
        selection,
    )
}

/// A parameter put together from its pieces.
#[derive(Debug)]
struct Whole {
    shape: Vec<usize>,
    data: Vec<f32>,
}

#[derive(Default)]
struct Loaded(BTreeMap<String, Whole>);

impl Loaded {
    fn put(&mut self, piece: Piece) {
        let Slot { name, shape } = piece.slot;
        let whole = self.0.entry(name.clone()).or_insert_with(|| Whole {
            data: vec![f32::NAN; shape.iter().product()],
            shape: shape.clone(),
        });
        let row = whole.data.len() / whole.shape[0];
        let place = &mut whole.data[piece.first * row..][..piece.data.len()];
        assert!(place.iter().all(|v| v.is_nan()), "rows came twice");
        place.copy_from_slice(piece.data);
    }
}

fn load(
    files: &[Vec<u8>],
    config: &ModelConfig,
    selection: Selection,
) -> Result<BTreeMap<String, Whole>> {
    let plan = plan(files, config, selection)?;
    let mut sources: Vec<_> = files.iter().map(Cursor::new).collect();
    let mut loaded = Loaded::default();
    assemble(plan, &mut sources, |piece| {
        loaded.put(piece);
        Ok(())
    })?;
    Ok(loaded.0)
}

fn encoder(choice: EncoderChoice) -> Selection {
    Selection {
        encoder: choice,
        ..Selection::default()
    }
}

fn assert_loaded(loaded: &BTreeMap<String, Whole>, parameters: &[Parameter]) {
    for (index, parameter) in parameters.iter().enumerate() {
        let found = &loaded[&parameter.name];
        assert_eq!(found.shape, parameter.shape, "{}", parameter.name);
        let expected: Vec<f32> = (0..found.data.len())
            .map(|element| value(index, element))
            .collect();
        assert_eq!(found.data, expected, "{}", parameter.name);
    }
}

#[test]
fn every_layout_gives_the_same_parameters() {
    let config = tiny();
    let parameters = parameters(&config);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let mut layouts = vec![];
        for prefix in ["", "ijepa."] {
            layouts.push(hugging_face(&parameters, prefix, false, dtype));
            layouts.push(hugging_face(&parameters, prefix, true, dtype));
        }
        for prefix in [
            "",
            "module.",
            "encoder.",
            "encoder.module.",
            "target_encoder.",
            "target_encoder.module.",
        ] {
            layouts.push(original(&parameters, prefix, dtype));
        }
        for tensors in layouts {
            let loaded = load(&[write(&tensors)], &config, Selection::default()).unwrap();
            assert_eq!(loaded.len(), parameters.len(), "{}", tensors[0].name);
            assert_loaded(&loaded, &parameters);
        }
    }
}

/// How the original projects wrap a network.
const WRAPS: [&str; 4] = ["", "module.", "backbone.", "module.backbone."];

fn clips(system: &str) -> ModelConfig {
    config(&format!(
        r#"{{"system":"{system}","imageSize":[16,24],"patchSize":8,"frames":4,"channels":2,"hiddenSize":12,"layers":4,"heads":2,
            "predictor":{{"hiddenSize":12,"layers":1,"heads":2}}}}"#
    ))
}

#[test]
fn every_prefix_of_the_video_models_gives_the_same_parameters() {
    for system in ["vjepa", "vjepa2", "vjepa2.1"] {
        let config = clips(system);
        let parameters = parameters(&config);
        for (network, choice) in [
            ("", EncoderChoice::Auto),
            ("encoder.", EncoderChoice::Context),
            ("target_encoder.", EncoderChoice::Target),
            ("ema_encoder.", EncoderChoice::Target),
        ] {
            for wrap in WRAPS {
                let prefix = format!("{network}{wrap}");
                let mut tensors = original(&parameters, &prefix, Dtype::F32);
                // Files of models with rotary positions still have a table, which means nothing.
                if system != "vjepa" {
                    tensors.push(Tensor {
                        name: format!("{prefix}pos_embed"),
                        dtype: Dtype::F32,
                        shape: vec![1, 7, 12],
                        data: vec![255; 4 * 7 * 12],
                    });
                }
                for choice in [choice, EncoderChoice::Auto] {
                    let loaded = load(&[write(&tensors)], &config, encoder(choice));
                    let loaded = loaded.unwrap_or_else(|e| panic!("{system}, {prefix}: {e}"));
                    assert_eq!(loaded.len(), parameters.len(), "{system}, {prefix}");
                    assert_loaded(&loaded, &parameters);
                }
            }
        }
    }
}

#[test]
fn a_video_models_own_average_goes_before_its_encoder_and_its_predictor_comes_along() {
    for system in ["vjepa", "vjepa2", "vjepa2.1"] {
        let config = clips(system);
        let parameters = parameters(&config);
        for average in ["target_encoder.", "ema_encoder."] {
            for wrap in WRAPS {
                let mut context = original(&parameters, &format!("encoder.{wrap}"), Dtype::F32);
                for tensor in &mut context {
                    tensor.data.fill(0);
                }
                let target = original(&parameters, &format!("{average}{wrap}"), Dtype::F32);
                let names = predictor_parameters(&config);
                let predictor = original(&names, &format!("predictor.{wrap}"), Dtype::F32);
                let files = [write(&[context, target, predictor].concat())];
                let selection = Selection {
                    predictor: true,
                    ..Selection::default()
                };
                let loaded = load(&files, &config, selection).unwrap();
                assert_eq!(loaded.len(), parameters.len() + names.len());
                assert_loaded(&loaded, &parameters);
                for (index, parameter) in names.iter().enumerate() {
                    let own = match parameter.name.ends_with("_mod_embed") {
                        true => format!("{PREDICTOR}{}", parameter.name),
                        false => parameter.name.clone(),
                    };
                    let found = &loaded[&own];
                    let expected = (0..found.data.len()).map(|element| value(index, element));
                    assert!(found.data.iter().copied().eq(expected), "{system}, {own}");
                }
                let context = load(&files, &config, encoder(EncoderChoice::Context)).unwrap();
                let values = context.values().flat_map(|whole| &whole.data);
                assert!(values.into_iter().all(|&value| value == 0.0));
            }
        }
    }
}

#[test]
fn tensors_may_be_spread_over_files_in_any_order() {
    let config = tiny();
    let parameters = parameters(&config);
    let mut files = [vec![], vec![], vec![]];
    for (index, tensor) in hugging_face(&parameters, "", false, Dtype::F16)
        .into_iter()
        .rev()
        .enumerate()
    {
        files[index * 7 % 3].push(tensor);
    }
    let files = files.map(|tensors| write(&tensors));
    assert_loaded(
        &load(&files, &config, Selection::default()).unwrap(),
        &parameters,
    );

    let error = load(
        &[files[0].clone(), files[0].clone()],
        &config,
        Selection::default(),
    )
    .unwrap_err();
    assert_eq!(error.code(), "bad-checkpoint");
    assert!(
        error.to_string().starts_with("more than one file holds "),
        "{error}"
    );
}

#[test]
fn reads_are_absolute_and_in_file_order() {
    let config = tiny();
    let files = [write(&hugging_face(
        &parameters(&config),
        "",
        false,
        Dtype::F16,
    ))];
    let plan = plan(&files, &config, Selection::default()).unwrap();
    let ends: Vec<u64> = plan.reads().iter().map(|read| read.end).collect();
    assert!(
        plan.reads()
            .windows(2)
            .all(|pair| pair[0].end == pair[1].begin)
    );
    assert_eq!(ends.last(), Some(&(files[0].len() as u64)));
    assert_eq!(plan.bytes_total(), config.parameter_count() * 2);
    assert_eq!(
        (plan.files(), plan.has_predictor()),
        (&["0.safetensors".to_string()][..], false)
    );
}

#[test]
fn the_encoder_of_a_training_checkpoint_can_be_chosen() {
    let config = tiny();
    let parameters = parameters(&config);
    let context = original(&parameters, "encoder.", Dtype::F32);
    let mut target = original(&parameters, "target_encoder.", Dtype::F32);
    target.iter_mut().for_each(|tensor| tensor.data.fill(0));
    let predictor = original(
        &predictor_parameters(&config),
        "predictor.module.",
        Dtype::F32,
    );
    let state = Tensor {
        name: "epoch".into(),
        dtype: Dtype::from_name("I64").unwrap(),
        shape: vec![],
        data: vec![0; 8],
    };
    let all = [
        context.clone(),
        target.clone(),
        predictor.clone(),
        vec![state],
    ]
    .concat();
    let files = [write(&all)];

    assert_loaded(
        &load(&files, &config, encoder(EncoderChoice::Context)).unwrap(),
        &parameters,
    );
    for choice in [EncoderChoice::Auto, EncoderChoice::Target] {
        let loaded = load(&files, &config, encoder(choice)).unwrap();
        assert!(
            loaded
                .values()
                .all(|parameter| parameter.data.iter().all(|&value| value == 0.0))
        );
    }
    assert!(
        plan(&files, &config, Selection::default())
            .unwrap()
            .has_predictor()
    );
    let both = load(
        &files,
        &config,
        Selection {
            encoder: EncoderChoice::Context,
            predictor: true,
            both: false,
            ..Selection::default()
        },
    )
    .unwrap();
    assert_loaded(&both, &parameters);
    assert_loaded(&both, &predictor_parameters(&config));

    // The choice between two is never made for lack of a tensor.
    let lacking = [write(&[context.clone(), target[1..].to_vec()].concat())];
    assert!(
        load(&lacking, &config, encoder(EncoderChoice::Auto)).is_ok(),
        "the table is computed"
    );
    let lacking = [write(&[context.clone(), target[2..].to_vec()].concat())];
    let error = load(&lacking, &config, encoder(EncoderChoice::Auto)).unwrap_err();
    assert_eq!(
        error,
        Error::MissingTensor("the checkpoint lacks target_encoder.patch_embed.proj.weight".into())
    );

    let only = [write(&context)];
    assert_loaded(
        &load(&only, &config, encoder(EncoderChoice::Auto)).unwrap(),
        &parameters,
    );
    assert_eq!(
        load(&only, &config, encoder(EncoderChoice::Target))
            .unwrap_err()
            .code(),
        "missing-tensor"
    );
    let selection = Selection {
        encoder: EncoderChoice::Auto,
        predictor: true,
        both: false,
        ..Selection::default()
    };
    let error = load(&only, &config, selection).unwrap_err();
    assert!(
        error.to_string().contains("predictor.mask_token"),
        "{error}"
    );
    let without = ModelConfig {
        predictor: None,
        ..config
    };
    assert_eq!(
        load(&files, &without, selection).unwrap_err().code(),
        "bad-config"
    );
}

#[test]
fn every_missing_and_extra_tensor_is_named() {
    let config = tiny();
    let parameters = parameters(&config);
    let whole = hugging_face(&parameters, "ijepa.", false, Dtype::F32);
    let extra = |name: &str| Tensor {
        name: name.into(),
        dtype: Dtype::F32,
        shape: vec![1],
        data: vec![0; 4],
    };

    let heads = [
        "classifier.weight",
        "ijepa.pooler.dense.bias",
        "ijepa.embeddings.mask_token",
    ]
    .map(extra);
    assert!(
        load(
            &[write(&[&whole[..], &heads].concat())],
            &config,
            Selection::default()
        )
        .is_ok()
    );

    let kept: Vec<_> = whole
        .iter()
        .filter(|t| !t.name.contains("key") && !t.name.contains("layernorm."))
        .cloned()
        .collect();
    let error = load(&[write(&kept)], &config, Selection::default()).unwrap_err();
    assert_eq!(error.code(), "missing-tensor");
    for name in [
        "ijepa.encoder.layer.0.attention.attention.key.weight",
        "ijepa.encoder.layer.0.attention.attention.key.bias",
        "ijepa.encoder.layer.1.attention.attention.key.weight",
        "ijepa.encoder.layer.1.attention.attention.key.bias",
        "ijepa.layernorm.weight",
        "ijepa.layernorm.bias",
    ] {
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
    assert_eq!(error.to_string().matches("ijepa.").count(), 6, "{error}");

    let more = [
        "ijepa.encoder.layer.2.layernorm_after.bias",
        "ijepa.embeddings.cls_token",
    ]
    .map(extra);
    let error = load(
        &[write(&[&whole[..], &more].concat())],
        &config,
        Selection::default(),
    )
    .unwrap_err();
    assert_eq!(error.code(), "bad-checkpoint");
    assert!(
        more.iter()
            .all(|tensor| error.to_string().contains(&tensor.name)),
        "{error}"
    );

    let foreign = load(
        &[write(&[extra("conv1.weight")])],
        &config,
        Selection::default(),
    )
    .unwrap_err();
    assert_eq!(foreign.code(), "missing-tensor");
    assert!(foreign.to_string().contains("conv1.weight"), "{foreign}");
    assert_eq!(
        load(&[], &config, Selection::default()).unwrap_err().code(),
        "missing-tensor"
    );
}

#[test]
fn every_wrong_shape_is_named_with_both_shapes() {
    let config = tiny();
    let files = [write(&hugging_face(
        &parameters(&config),
        "",
        false,
        Dtype::F32,
    ))];
    let wide = ModelConfig {
        mlp_hidden: 16,
        image_size: [16, 16],
        ..config
    };
    let error = load(&files, &wide, Selection::default()).unwrap_err();
    assert_eq!(error.code(), "shape-mismatch");
    for named in [
        "embeddings.position_embeddings (expected [1, 4, 8], found [1, 6, 8])",
        "encoder.layer.0.intermediate.dense.weight (expected [16, 8], found [32, 8])",
        "encoder.layer.1.output.dense.weight (expected [8, 16], found [8, 32])",
    ] {
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
}

#[test]
fn other_types_are_unsupported_by_name() {
    let config = tiny();
    let mut tensors = original(&parameters(&config), "", Dtype::F32);
    for tensor in &mut tensors[3..5] {
        tensor.dtype = Dtype::from_name("F64").unwrap();
        tensor.data = vec![0; tensor.data.len() * 2];
    }
    let error = load(&[write(&tensors)], &config, Selection::default()).unwrap_err();
    assert_eq!(error.code(), "unsupported");
    assert!(
        tensors[3..5]
            .iter()
            .all(|t| error.to_string().contains(&format!("{} (F64)", t.name))),
        "{error}"
    );
}

/// The same tensors, matrices as int8 whose step in row r is r + 1, and whose scales divide it out again: so 1 / 64 of the values that
/// `value` gives, which are whole, and fit.
fn int8(tensors: Vec<Tensor>) -> Vec<Tensor> {
    let mut all = Vec::new();
    for tensor in tensors {
        if tensor.shape.len() < 2 || tensor.shape[0] == 1 {
            all.push(tensor);
            continue;
        }
        let rows = tensor.shape[0];
        let scales = (0..rows).map(|row| 0.25 / (row + 1) as f32);
        let values = tensor.data.as_chunks::<4>().0.iter();
        all.push(Tensor {
            name: format!("{}_scale", tensor.name),
            dtype: Dtype::F32,
            shape: vec![rows, 1],
            data: scales.flat_map(f32::to_le_bytes).collect(),
        });
        all.push(Tensor {
            dtype: Dtype::I8,
            data: values
                .map(|&bytes| (f32::from_le_bytes(bytes) * 4.0).floor() as i8 as u8)
                .collect(),
            ..tensor
        });
    }
    all
}

#[test]
fn int8_weights_are_read_with_the_scales_of_their_rows() {
    let config = tiny();
    let whole = hugging_face(&parameters(&config), "", true, Dtype::F32);
    let tensors = int8(whole.clone());
    let got = load(&[write(&tensors)], &config, Selection::default()).unwrap();
    let qkv = &got["blocks.1.attn.qkv.weight"];
    let parts = ["q_proj", "k_proj", "v_proj"];
    for (part, got) in parts.iter().zip(qkv.data.chunks(qkv.data.len() / 3)) {
        let name = format!("layers.1.attention.{part}.weight");
        let tensor = whole.iter().find(|tensor| tensor.name == name).unwrap();
        let row: usize = tensor.shape[1..].iter().product();
        for (index, (got, bytes)) in got.iter().zip(tensor.data.as_chunks::<4>().0).enumerate() {
            let steps = (f32::from_le_bytes(*bytes) * 4.0).floor();
            assert_eq!(*got, steps * (0.25 / (index / row + 1) as f32), "{name}");
        }
    }

    let at = tensors
        .iter()
        .position(|tensor| tensor.dtype == Dtype::I8)
        .unwrap();
    let refused = |change: &dyn Fn(&mut Vec<Tensor>), said: &str| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        let error = load(&[write(&tensors)], &config, Selection::default()).unwrap_err();
        assert_eq!(error.code(), "unsupported");
        assert!(error.to_string().contains(said), "{error}");
    };
    refused(&|tensors| drop(tensors.remove(at - 1)), "without scales");
    refused(&|tensors| tensors[at - 1].shape.reverse(), "one F32 a row");
    refused(&|tensors| tensors.swap(at - 1, at), "not before it");
}

#[test]
fn position_tables_are_optional_only_where_they_can_be_computed() {
    let config = tiny();
    let files = [write(&original(&parameters(&config)[1..], "", Dtype::F32))];
    assert!(
        !load(&files, &config, Selection::default())
            .unwrap()
            .contains_key("pos_embed")
    );
    let learned = ModelConfig {
        positions: webjepa::config::Positions::Learned,
        ..config
    };
    assert_eq!(
        load(&files, &learned, Selection::default())
            .unwrap_err()
            .code(),
        "missing-tensor"
    );
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let config = tiny();
    for (bad, dtype) in [
        (f32::NAN, Dtype::F32),
        (f32::INFINITY, Dtype::BF16),
        (f32::NEG_INFINITY, Dtype::F16),
    ] {
        let mut tensors = hugging_face(&parameters(&config), "", true, dtype);
        let tensor = tensors
            .iter_mut()
            .find(|tensor| tensor.name == "layers.1.attention.k_proj.weight")
            .unwrap();
        let width = dtype.bits() as usize / 8;
        tensor.data[17 * width..18 * width].copy_from_slice(&encode(dtype, std::iter::once(bad)));
        let error = load(&[write(&tensors)], &config, Selection::default()).unwrap_err();
        assert_eq!(error.code(), "bad-checkpoint");
        let message = error.to_string();
        assert!(
            message.contains("layers.1.attention.k_proj.weight") && message.contains("index 17"),
            "{message}"
        );
    }
}

#[test]
fn long_tensors_come_in_pieces() {
    let config = config(
        r#"{"imageSize":8,"patchSize":8,"channels":1,"hiddenSize":516,"layers":1,"heads":1,"predictor":null}"#,
    );
    let parameters = parameters(&config);
    let files = [write(&hugging_face(&parameters, "", false, Dtype::F16))];
    let plan = plan(&files, &config, Selection::default()).unwrap();
    let mut loaded = Loaded::default();
    let mut heights = BTreeMap::<String, Vec<usize>>::new();
    assemble(plan, &mut [Cursor::new(&files[0])], |piece| {
        let row: usize = piece.slot.shape[1..].iter().product();
        assert!(4 * piece.data.len() <= 1 << 20);
        assert_eq!(piece.data.len() % row, 0);
        let heights = heights.entry(piece.slot.name.clone()).or_default();
        heights.push(piece.data.len() / row);
        loaded.put(piece);
        Ok(())
    })
    .unwrap();
    assert_loaded(&loaded.0, &parameters);
    // 1 MiB is 508.03 rows of 516 values and 127.01 of 4 · 516; both are cut to a multiple of four.
    assert_eq!(heights["blocks.0.attn.qkv.weight"], [508, 8].repeat(3));
    assert_eq!(heights["blocks.0.mlp.fc1.weight"], [508, 508, 508, 508, 32]);
    assert_eq!(heights["blocks.0.mlp.fc2.weight"], [124, 124, 124, 124, 20]);
    assert_eq!(heights["blocks.0.attn.qkv.bias"], [516, 516, 516]);
}

#[test]
fn an_error_of_the_sink_is_passed_on() {
    let config = tiny();
    let file = write(&original(&parameters(&config), "", Dtype::F32));
    let plan = plan(std::slice::from_ref(&file), &config, Selection::default()).unwrap();
    let full = Error::OutOfMemory("full".into());
    let result = assemble(plan, &mut [Cursor::new(&file)], |_| Err(full.clone()));
    assert_eq!(result, Err(full));
}

#[test]
fn bytes_out_of_turn_are_refused() {
    let config = tiny();
    let files = [write(&original(&parameters(&config), "", Dtype::F32))];
    let assembler = || Assembler::new(plan(&files, &config, Selection::default()).unwrap());
    let length = |a: &Assembler, index: usize| {
        (a.plan().reads()[index].end - a.plan().reads()[index].begin) as usize
    };

    let write = |a: &mut Assembler, bytes: &[u8]| {
        let mut pieces = 0;
        a.write(bytes, |_| {
            pieces += 1;
            Ok(())
        })
        .map(|()| pieces)
    };

    let error = write(&mut assembler(), &[0]).unwrap_err();
    assert_eq!(error.code(), "bad-input");
    assert_eq!(assembler().begin(1).unwrap_err().code(), "bad-input");
    assert_eq!(
        assembler().begin(usize::MAX).unwrap_err().code(),
        "bad-input"
    );
    assert_eq!(assembler().finish().unwrap_err().code(), "bad-checkpoint");

    let mut long = assembler();
    long.begin(0).unwrap();
    let bytes = vec![0; length(&long, 0) + 1];
    let error = write(&mut long, &bytes).unwrap_err();
    assert!(error.to_string().contains("goes on"), "{error}");

    let mut short = assembler();
    short.begin(0).unwrap();
    let bytes = vec![0; length(&short, 0) - 1];
    assert_eq!(write(&mut short, &bytes), Ok(0));
    let error = short.begin(1).unwrap_err();
    assert!(error.to_string().contains("ended 1 bytes early"), "{error}");
    assert_eq!(short.finish().unwrap_err(), error);

    let mut part = assembler();
    part.begin(0).unwrap();
    let bytes = vec![0; length(&part, 0)];
    assert_eq!(write(&mut part, &bytes), Ok(1));
    assert_eq!(write(&mut part, &[0]).unwrap_err().code(), "bad-input");
    assert!(
        part.finish()
            .unwrap_err()
            .to_string()
            .contains("were not read")
    );
}

fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/tests/fixtures/{path}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn fixture_config(path: &str) -> ModelConfig {
    ModelConfig::from_any_json(std::str::from_utf8(&fixture(path)).unwrap()).unwrap()
}

#[test]
fn the_original_and_the_hugging_face_fixture_are_the_same_encoder() {
    let config = fixture_config("ijepa_tiny_hf/config.json");
    let files = [fixture("ijepa_tiny.safetensors")];
    let context = load(&files, &config, encoder(EncoderChoice::Context)).unwrap();
    let converted = load(
        &[fixture("ijepa_tiny_hf/model.safetensors")],
        &config,
        Selection::default(),
    )
    .unwrap();
    assert_eq!(context.len(), parameters(&config).len());
    assert_eq!(converted.len(), context.len());
    for (name, parameter) in &context {
        assert_eq!(
            (&parameter.shape, &parameter.data),
            (&converted[name].shape, &converted[name].data),
            "{name}"
        );
    }
    let target = load(&files, &config, encoder(EncoderChoice::Auto)).unwrap();
    assert_eq!(target["pos_embed"].data, context["pos_embed"].data);
    assert_ne!(target["norm.weight"].data, context["norm.weight"].data);
}

#[test]
fn the_predictor_of_the_fixture_is_read_whole() {
    let predictor = r#"{"imageSize":32,"patchSize":8,"hiddenSize":24,"layers":2,"heads":3,
        "predictor":{"hiddenSize":16,"layers":2,"heads":2}}"#;
    let config = config(predictor);
    let selection = Selection {
        encoder: EncoderChoice::Auto,
        predictor: true,
        both: false,
        ..Selection::default()
    };
    let loaded = load(&[fixture("ijepa_tiny.safetensors")], &config, selection).unwrap();
    assert_eq!(
        loaded.len(),
        parameters(&config).len() + predictor_parameters(&config).len()
    );
    assert_eq!(loaded["predictor_proj.weight"].shape, [24, 16]);
}

#[test]
fn modality_tokens_of_encoder_and_predictor_are_kept_apart() {
    let config = config(
        r#"{"system":"vjepa2.1","imageSize":64,"patchSize":16,"frames":4,"hiddenSize":32,"layers":12,"heads":2,"ropeGrid":16,
            "predictor":{"hiddenSize":32,"layers":4,"heads":2}}"#,
    );
    let file = || fixture("vjepa21_tiny.safetensors");
    let selection = |predictor| Selection {
        predictor,
        ..Selection::default()
    };
    let encoder = load(&[file()], &config, selection(false)).unwrap();
    let both = load(&[file()], &config, selection(true)).unwrap();
    assert_eq!(
        both.len(),
        parameters(&config).len() + predictor_parameters(&config).len()
    );
    for name in ["video_mod_embed", "img_mod_embed"] {
        let of_predictor = &both[&format!("{PREDICTOR}{name}")];
        assert_eq!(both[name].data, encoder[name].data);
        assert_ne!(both[name].data, of_predictor.data);
    }
}

#[test]
fn the_half_precision_fixture_is_read_whole() {
    let config = fixture_config("ijepa_ti16/config.json");
    let file = fixture("ijepa_ti16/model.safetensors");
    let loaded = load(&[file], &config, Selection::default()).unwrap();
    let elements: usize = loaded.values().map(|parameter| parameter.data.len()).sum();
    assert_eq!(elements as u64, config.parameter_count());
    assert_eq!(loaded["blocks.11.attn.qkv.weight"].shape, [576, 192]);
}

#[test]
fn other_systems_are_refused() {
    let config = fixture_config("ijepa_tiny_hf/config.json");
    for path in [
        "vjepa2_tiny_hf/model.safetensors",
        "vjepa21_tiny.safetensors",
        "lewm_tiny.safetensors",
    ] {
        let error = load(&[fixture(path)], &config, Selection::default()).unwrap_err();
        assert_eq!(error.code(), "missing-tensor", "{path}: {error}");
    }
}

fn headers() -> impl Strategy<Value = Vec<Tensor>> {
    let dtype = prop::sample::select(vec!["F32", "F16", "BF16", "I64", "BOOL"]);
    let tensor = ("\\PC{0,12}", dtype, prop::collection::vec(0usize..4, 0..4)).prop_map(
        |(name, dtype, shape)| {
            let dtype = Dtype::from_name(dtype).unwrap();
            let bytes = shape.iter().product::<usize>() * dtype.bits() as usize / 8;
            Tensor {
                name,
                dtype,
                shape,
                data: (0..bytes).map(|byte| byte as u8).collect(),
            }
        },
    );
    prop::collection::btree_map(any::<u32>(), tensor, 0..8).prop_map(|tensors| {
        let mut names = std::collections::BTreeSet::from(["__metadata__".to_string()]);
        tensors
            .into_values()
            .filter(|tensor| names.insert(tensor.name.clone()))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_written_file_reads_as_the_same(tensors in headers()) {
        let file = write(&tensors);
        let header = Header::of(&file).unwrap();
        prop_assert_eq!(header.data_start % 8, 0);
        prop_assert_eq!(header.tensors.len(), tensors.len());
        for tensor in &tensors {
            let info = header.tensors.iter().find(|info| info.name == tensor.name).unwrap();
            prop_assert_eq!((info.dtype, &info.shape), (tensor.dtype, &tensor.shape));
            let range = (header.data_start + info.begin) as usize..(header.data_start + info.end) as usize;
            prop_assert_eq!(&file[range], &tensor.data[..]);
        }
    }

    #[test]
    fn chunk_sizes_and_file_order_do_not_matter(
        tensors in Just(hugging_face(&parameters(&tiny()), "", false, Dtype::F16)).prop_shuffle(),
        size in 1usize..700,
    ) {
        let config = tiny();
        let file = write(&tensors);
        let mut assembler = Assembler::new(plan(std::slice::from_ref(&file), &config, Selection::default()).unwrap());
        let mut loaded = Loaded::default();
        for index in 0..assembler.plan().reads().len() {
            let read = assembler.plan().reads()[index].clone();
            assembler.begin(index).unwrap();
            for chunk in file[read.begin as usize..read.end as usize].chunks(size) {
                assembler.write(chunk, |piece| {
                    loaded.put(piece);
                    Ok(())
                }).unwrap();
            }
        }
        assembler.finish().unwrap();
        assert_loaded(&loaded.0, &parameters(&config));
    }

    #[test]
    fn a_file_that_is_cut_short_is_refused(cut in 0.0f64..1.0) {
        let config = tiny();
        let mut file = write(&original(&parameters(&config), "encoder.", Dtype::F16));
        file.truncate((file.len() as f64 * cut) as usize);
        prop_assert_eq!(load(&[file], &config, Selection::default()).unwrap_err().code(), "bad-checkpoint");
    }

    #[test]
    fn no_flipped_bits_panic(flips in prop::collection::vec((0.0f64..1.0, 1u8..=255), 1..4), in_header: bool) {
        let config = tiny();
        let mut file = write(&original(&parameters(&config), "", Dtype::F16));
        let range = if in_header { Header::of(&file).unwrap().data_start as usize } else { file.len() };
        for (place, mask) in flips {
            file[(range as f64 * place) as usize] ^= mask;
        }
        if let Ok(loaded) = load(&[file], &config, Selection::default()) {
            prop_assert!(loaded.values().all(|parameter| parameter.data.iter().all(|value| value.is_finite())));
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, json: String) {
        let _ = Header::of(&bytes);
        let _ = Header::parse(json.as_bytes(), bytes.len() as u64 + 8);
        let _ = webjepa::checkpoint::shards(&json);
    }
}
