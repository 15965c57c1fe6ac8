//! `webjepa convert`: writes a checkpoint anew, in one file and another type of numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use webjepa::checkpoint::{
    Dtype, OTHER, PREDICTOR, Q8, TensorData, assemble, parameters, predictor_parameters,
    safetensors, to_f16,
};
use webjepa::config::{ModelConfig, System};
use webjepa::device::Precision;
use webjepa::input::file_name;
use webjepa::nn::parameters::{is_table, is_vector};
use webjepa::train::network::{HostTensor, predictor_prefix};
use webjepa::train::save::hugging_face_tensors;
use webjepa::{Error, Result};

use super::{Model, unwritable};

/// Write a checkpoint anew, in one file.
///
/// With a predictor the folder has the original names, and both encoders where there are two, as predicting takes them; without
/// one it has one encoder in the Hugging Face layout, which transformers loads unless it is q8.
#[derive(clap::Args)]
pub struct Convert {
    #[command(flatten)]
    model: Model,
    /// Folder to write config.json, preprocessor_config.json (of a model of video video_preprocessor_config.json) and
    /// model.safetensors into; it is made if need be.
    out: PathBuf,
    /// How to write weights: f32, f16 or q8. In q8 the matrices are int8 with one f32 scale a row, named as their tensor with `_scale`
    /// after it, and all else is f32; this library reads it, transformers does not.
    #[arg(long, default_value = "f16")]
    dtype: Precision,
}

fn transformers_name(dtype: Precision) -> &'static str {
    match dtype {
        Precision::F16 => "float16",
        _ => "float32",
    }
}

/// Runs the command.
pub fn run(arguments: &Convert) -> Result<()> {
    let mut opened = arguments.model.open(true, true)?;
    let is_target = opened.plan.is_target();
    let slots = opened.plan.slots().iter();
    let mut tensors: Vec<HostTensor> = slots
        .map(|slot| HostTensor {
            name: slot.name.clone(),
            shape: slot.shape.clone(),
            data: vec![0.0; slot.shape.iter().product()],
        })
        .collect();
    assemble(opened.plan, &mut opened.files, |piece| {
        // In the order of the file: the rows of a fused parameter come in any.
        if let Some(tensor) = tensors.iter_mut().find(|t| t.name == piece.slot.name) {
            let row: usize = tensor.shape[1..].iter().product();
            let first = piece.first * row;
            tensor.data[first..first + piece.data.len()].copy_from_slice(piece.data);
        }
        Ok(())
    })?;
    let mut config = opened.config;
    let processor_file = file_name(&config);
    let encoder = parameters(&config);
    let predictor: Vec<String> = predictor_parameters(&config)
        .into_iter()
        .map(
            |parameter| match encoder.iter().any(|p| p.name == parameter.name) {
                true => format!("{PREDICTOR}{}", parameter.name),
                false => parameter.name,
            },
        )
        .collect();
    let (config, tensors) = if tensors.iter().any(|t| predictor.contains(&t.name)) {
        let of_predictor = predictor_prefix(&config);
        let two = tensors.iter().any(|tensor| tensor.name.starts_with(OTHER));
        for tensor in &mut tensors {
            let (prefix, name) = match tensor.name.strip_prefix(OTHER) {
                Some(other) if is_target => ("encoder.", other),
                Some(other) => ("target_encoder.", other),
                None if predictor.contains(&tensor.name) => {
                    let name = tensor.name.strip_prefix(PREDICTOR);
                    (of_predictor, name.unwrap_or(&tensor.name))
                }
                None if two && is_target => ("target_encoder.", &*tensor.name),
                None => ("encoder.", &*tensor.name),
            };
            tensor.name = format!("{prefix}{name}");
        }
        (own(&config)?, tensors)
    } else {
        config.predictor = None;
        tensors.retain(|tensor| !tensor.name.starts_with(OTHER));
        match config.system {
            System::IJepa => (
                config.to_hugging_face(transformers_name(arguments.dtype)),
                hugging_face_tensors(config.system, tensors),
            ),
            // transformers has no layout of these without a predictor.
            _ => (own(&config)?, tensors),
        }
    };
    let file = encoded(&tensors, arguments.dtype)?;
    let out = &arguments.out;
    fs::create_dir_all(out).map_err(|e| unwritable(out, &e))?;
    let processor = serde_json::to_value(&opened.processor)
        .map_err(|e| Error::Internal(format!("the preprocessing cannot be written: {e}")))?;
    for (name, bytes) in [
        ("config.json", format!("{config:#}\n").into_bytes()),
        (processor_file, format!("{processor:#}\n").into_bytes()),
        ("model.safetensors", file),
    ] {
        let path = out.join(name);
        fs::write(&path, bytes).map_err(|e| unwritable(&path, &e))?;
    }
    Ok(())
}

/// A configuration in this library's own form.
fn own(config: &ModelConfig) -> Result<serde_json::Value> {
    serde_json::to_value(config)
        .map_err(|e| Error::Internal(format!("the configuration cannot be written: {e}")))
}

/// The tensors as a safetensors file.
fn encoded(tensors: &[HostTensor], dtype: Precision) -> Result<Vec<u8>> {
    let of_floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut all: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for HostTensor { name, shape, data } in tensors {
        let (dtype, bytes) = match dtype {
            Precision::F16 => {
                let halves = to_f16(name, 0, data)?;
                let bytes = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
                (Dtype::F16, bytes)
            }
            Precision::Q8 if !is_vector(shape) && !is_table(name) => {
                let Q8 { data, scales } = Q8::quantize(name, data, shape[0])?;
                let name = format!("{name}_scale");
                all.push((name, Dtype::F32, vec![shape[0], 1], of_floats(&scales)));
                let bytes = data.iter().map(|v| v.cast_unsigned()).collect();
                (Dtype::I8, bytes)
            }
            _ => (Dtype::F32, of_floats(data)),
        };
        all.push((name.clone(), dtype, shape.clone(), bytes));
    }
    let views = all.iter().map(|(name, dtype, shape, data)| TensorData {
        name,
        dtype: *dtype,
        shape,
        data,
    });
    let views: Vec<TensorData> = views.collect();
    // transformers refuses a file that does not say so.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut file = Vec::new();
    safetensors::write(&mut file, &views, &metadata)
        .map_err(|e| Error::Internal(format!("the file cannot be written: {e}")))?;
    Ok(file)
}
