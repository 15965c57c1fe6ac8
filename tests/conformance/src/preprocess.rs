//! `preprocess_ops.json`: resize kernels and position interpolation.

use serde_json::Value;
use webjepa::input::resize::{
    Filter, Geometry, Library, Sampling, interpolate, resize_f32, resize_u8,
};

use crate::expected::flat;
use crate::folder::{Folder, sizes};
use crate::report::Report;
use crate::tolerance::Quantity;

/// What the file holds of training: checked with the trainer.
const TRAINING: [&str; 6] = [
    "gelu_exact",
    "gelu_tanh",
    "smooth_l1_beta1",
    "l1",
    "mse",
    "adamw_trajectory",
];

pub fn operations(folder: &Folder, file: &str, report: &mut Report) -> Result<(), String> {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    for case in entry["cases"].as_array().ok_or("no cases")? {
        let text = |key: &str| case[key].as_str().ok_or(format!("a case has no {key}"));
        let (key, kind) = (text("key")?, text("kind")?);
        if TRAINING.contains(&kind) {
            report.skipped(key, "training is not implemented");
            continue;
        }
        let input = &expected[text("input")?];
        let (got, quantity) = match kind {
            "resize" => resized(case, &flat(input), case["in_hw"].clone())?,
            "pos_bicubic" => (
                table(case, input, ("in_hw", "out_hw"), Filter::Bicubic)?,
                Quantity::Interpolation,
            ),
            "pos_trilinear" => (
                table(case, input, ("in_thw", "out_thw"), Filter::Bilinear)?,
                Quantity::Interpolation,
            ),
            other => return Err(format!("case {key} is of the unknown kind {other}")),
        };
        report.compare(key, &got, &expected[key], quantity)?;
    }
    Ok(())
}

/// A resize of a channel-major byte picture, channel-major again.
fn resized(case: &Value, picture: &[f64], in_hw: Value) -> Result<(Vec<f32>, Quantity), String> {
    let input: [usize; 2] = sizes(&in_hw).try_into().map_err(|_| "no in_hw")?;
    let output: [usize; 2] = sizes(&case["out_hw"]).try_into().map_err(|_| "no out_hw")?;
    let filter = Filter::ALL
        .into_iter()
        .find(|f| Some(f.name()) == case["filter"].as_str())
        .ok_or("unknown filter")?;
    let area = input[0] * input[1];
    let channels = picture.len() / area;
    let interleaved: Vec<f64> = (0..area)
        .flat_map(|p| (0..channels).map(move |c| picture[c * area + p]))
        .collect();
    let geometry = Geometry::whole(input, channels, output);
    let bytes: Vec<u8> = interleaved.iter().map(|&v| v as u8).collect();
    let (samples, quantity): (Vec<f32>, _) = match case["library"].as_str() {
        Some("torch") => {
            let floats: Vec<f32> = interleaved.iter().map(|&v| v as f32).collect();
            let antialias = case["antialias"].as_bool().unwrap_or(false);
            let out = resize_f32(&floats, &geometry, Sampling { filter, antialias });
            (out.map_err(|e| e.to_string())?, Quantity::Resize)
        }
        Some(library @ ("pil" | "opencv")) => {
            let library = if library == "pil" {
                Library::Pillow(filter)
            } else {
                Library::OpenCv
            };
            let out = resize_u8(&bytes, &geometry, library).map_err(|e| e.to_string())?;
            (out.into_iter().map(f32::from).collect(), Quantity::ResizeU8)
        }
        other => return Err(format!("unknown library {other:?}")),
    };
    let out_area = output[0] * output[1];
    let planar = (0..channels)
        .flat_map(|c| (0..out_area).map(move |p| (c, p)))
        .map(|(c, p)| samples[p * channels + c]);
    Ok((planar.collect(), quantity))
}

/// An interpolation of a `[1, channels, ..]` table.
fn table(
    case: &Value,
    input: &Value,
    (from, to): (&str, &str),
    filter: Filter,
) -> Result<Vec<f32>, String> {
    let data: Vec<f32> = flat(&input["data"]).iter().map(|&v| v as f32).collect();
    let channels = case["channels"].as_u64().ok_or("no channels")? as usize;
    let sampling = Sampling {
        filter,
        antialias: false,
    };
    interpolate(
        &data,
        channels,
        &sizes(&case[from]),
        &sizes(&case[to]),
        sampling,
    )
    .map_err(|e| e.to_string())
}
