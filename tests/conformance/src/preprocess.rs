//! `preprocess_ops.json`: resize kernels, position interpolation, GELU, losses and AdamW.

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use webjepa::device::read_values;
use webjepa::input::resize::{
    Filter, Geometry, Library, Sampling, interpolate, resize_f32, resize_u8,
};
use webjepa::nn::ops::update::{self, AdamW};
use webjepa::nn::ops::{self, Activation, Weight};
use webjepa::objective::distance::Distance;

use crate::expected::{flat, largest};
use crate::folder::{Folder, sizes};
use crate::report::Report;
use crate::tolerance::Quantity;

pub async fn operations(
    folder: &Folder,
    file: &str,
    device: &Device,
    report: &mut Report,
) -> Result<(), String> {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    for case in entry["cases"].as_array().ok_or("no cases")? {
        let text = |key: &str| case[key].as_str().ok_or(format!("a case has no {key}"));
        let (key, kind) = (text("key")?, text("kind")?);
        match kind {
            "adamw_trajectory" => adamw(report, key, case, &expected, device).await?,
            "gelu_exact" => gelu_exact(report, key, case, &expected, device).await?,
            "gelu_tanh" => gelu_tanh(report, key, case, &expected, device).await?,
            "smooth_l1_beta1" => {
                let distance = Distance::SmoothL1 { beta: 1.0 };
                loss(report, key, case, &expected, distance, device).await?;
            }
            "l1" => {
                let distance = Distance::L1 { power: 1.0 };
                loss(report, key, case, &expected, distance, device).await?;
            }
            "mse" => loss(report, key, case, &expected, Distance::Mse, device).await?,
            _ => resampled(report, key, case, &expected)?,
        }
    }
    Ok(())
}

/// A resize or an interpolation.
fn resampled(report: &mut Report, key: &str, case: &Value, expected: &Value) -> Result<(), String> {
    let input = &expected[case["input"]
        .as_str()
        .ok_or(format!("{key} has no input"))?];
    let (got, quantity) = match case["kind"].as_str() {
        Some("resize") => resized(case, &flat(input), case["in_hw"].clone())?,
        Some("pos_bicubic") => (
            table(case, input, ("in_hw", "out_hw"), Filter::Bicubic)?,
            Quantity::Interpolation,
        ),
        Some("pos_trilinear") => (
            table(case, input, ("in_thw", "out_thw"), Filter::Bilinear)?,
            Quantity::Interpolation,
        ),
        other => return Err(format!("case {key} is of the unknown kind {other:?}")),
    };
    report.compare(key, &got, &expected[key], quantity)
}

/// Both places in which the library computes a GELU: behind a matmul, and on its own where training needs the input.
async fn gelu_exact(
    report: &mut Report,
    key: &str,
    case: &Value,
    expected: &Value,
    device: &Device,
) -> Result<(), String> {
    let x = line(case, device)?;
    let [count] = x.dims();
    let alone = ops::activate(x.clone(), Activation::Gelu);
    for (name, y) in [
        ("", behind_matmul(x)),
        (", alone", alone.reshape([count, 1])),
    ] {
        let got = read_values(y).await.map_err(|e| e.to_string())?;
        report.compare(
            &format!("{key}{name}"),
            &got,
            &expected[key],
            Quantity::Gelu,
        )?;
    }
    Ok(())
}

/// No system of ours uses the approximation with tanh. What its numbers are good for is to show that the library does not
/// compute it: its GELU must be as far from them as the exact one is.
async fn gelu_tanh(
    report: &mut Report,
    key: &str,
    case: &Value,
    expected: &Value,
    device: &Device,
) -> Result<(), String> {
    let tanh = flat(&expected[key]);
    let exact = points(case)?
        .into_iter()
        .map(|x| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)))
        .map(|y| y as f32);
    let exact = largest(&exact.collect::<Vec<_>>(), &tanh);
    let got = read_values(behind_matmul(line(case, device)?));
    let got = largest(&got.await.map_err(|e| e.to_string())?, &tanh);
    let name = format!("{key}: as far from ours as from the exact one");
    report.value(&name, got, &Value::from(exact), Quantity::Gelu)
}

/// The evenly spaced points of a case.
fn points(case: &Value) -> Result<Vec<f64>, String> {
    let line: Result<[f64; 3], _> = flat(&case["x_linspace"]).try_into();
    let [first, last, count] = line.map_err(|_| "no x_linspace")?;
    let point = |i: usize| first + (last - first) * i as f64 / (count - 1.0);
    Ok((0..count as usize).map(point).collect())
}

/// The same on the device.
fn line(case: &Value, device: &Device) -> Result<Tensor<1>, String> {
    let points: Vec<f32> = points(case)?.into_iter().map(|v| v as f32).collect();
    let length = points.len();
    Ok(Tensor::from_data(TensorData::new(points, [length]), device))
}

/// GELU as a linear layer applies it: `[count]` → `[count, 1]`, with the weight 1 and the bias 0.
fn behind_matmul(x: Tensor<1>) -> Tensor<2> {
    let ([count], device) = (x.dims(), x.device());
    let weight = Weight::Full(Tensor::ones([1, 1], &device));
    let bias = Tensor::zeros([1], &device);
    ops::linear(x.reshape([count, 1]), &weight, &bias, None, true)
}

/// A mean distance, in its definition and on the device.
async fn loss(
    report: &mut Report,
    key: &str,
    case: &Value,
    expected: &Value,
    distance: Distance,
    device: &Device,
) -> Result<(), String> {
    let input = |i: usize| -> Result<Vec<f32>, String> {
        let name = case["inputs"][i].as_str().ok_or("no inputs")?;
        Ok(flat(&expected[name]).iter().map(|&v| v as f32).collect())
    };
    let (prediction, target) = (input(0)?, input(1)?);
    let shape = [1, prediction.len()];
    let defined = distance.between(&prediction, &target, shape);
    let defined = defined.map_err(|e| e.to_string())?.mean;
    report.value(key, defined, &expected[key], Quantity::Loss)?;
    let upload = |values| Tensor::<2>::from_data(TensorData::new(values, shape), device);
    let computed = ops::distance(upload(prediction), upload(target), distance);
    let computed = read_values(computed).await.map_err(|e| e.to_string())?;
    report.value(
        &format!("{key}, on the device"),
        computed.iter().map(|&v| f64::from(v)).sum(),
        &expected[key],
        Quantity::Loss,
    )
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

/// The optimizer's steps on the device, on parameters whose loss is `Σ coef · w²`.
async fn adamw(
    report: &mut Report,
    key: &str,
    case: &Value,
    expected: &Value,
    device: &Device,
) -> Result<(), String> {
    let rows: Vec<Vec<f64>> = expected[key]
        .as_array()
        .ok_or(format!("no {key}"))?
        .iter()
        .map(flat)
        .collect();
    let coefficients = flat(&case["coef"]);
    let constant = |name: &str| case[name].as_f64().ok_or(format!("{key} has no {name}"));
    let first = rows.first().ok_or(format!("{key} is empty"))?;
    let upload = |values: Vec<f32>| {
        let count = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [count]), device)
    };
    let mut value: Vec<f32> = first.iter().map(|&v| v as f32).collect();
    let mut moments = [0, 1].map(|_| upload(vec![0.0; value.len()]));
    let mut got = value.clone();
    for step in 1..rows.len() {
        let adamw = AdamW {
            lr: constant("lr")?,
            beta1: constant("beta1")?,
            beta2: constant("beta2")?,
            eps: constant("eps")?,
            weight_decay: constant("weight_decay")?,
            step: step as u32,
        };
        let gradient = value
            .iter()
            .zip(&coefficients)
            .map(|(w, c)| 2.0 * *c as f32 * w);
        let numbers = upload(adamw.numbers(1.0, 0.0).to_vec());
        let gradient = upload(gradient.collect());
        let (updated, next) = update::adamw(upload(value), gradient, moments, &numbers);
        moments = next;
        value = read_values(updated).await.map_err(|e| e.to_string())?;
        got.extend(&value);
    }
    report.compare(key, &got, &expected[key], Quantity::Updated)
}
