//! The gradient of every operation against finite differences of the operation itself, on this build's backend.
//!
//! An operation's output is contracted with fixed numbers to one value; the derivative of that value along a random
//! direction of an input is compared with what backpropagation says of it.

use burn::tensor::{Device, Tensor, TensorData};
use webjepa::device::read_values;
use webjepa::nn::ops::{self, Activation, AttentionMask, BlockForm, Rows, Weight};
use webjepa::nn::rope::{Frequencies, Rope};
use webjepa::objective::distance::Distance;

use crate::report::Report;
use crate::tolerance::Quantity;

/// Step of the central difference, times a direction whose elements are at most 1: large enough that rounding of an f32
/// result stays below the tolerance, small enough that the third derivative does.
const STEP: f32 = 2e-2;

type Inputs = Vec<Tensor<1>>;
type Forward = dyn Fn(&Inputs, &Device) -> Tensor<1>;

struct Case {
    name: &'static str,
    shapes: Vec<Vec<usize>>,
    /// From flat inputs to a flat output.
    forward: Box<Forward>,
}

fn case(
    name: &'static str,
    shapes: &[&[usize]],
    forward: impl Fn(&Inputs, &Device) -> Tensor<1> + 'static,
) -> Case {
    Case {
        name,
        shapes: shapes.iter().map(|s| s.to_vec()).collect(),
        forward: Box::new(forward),
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (gelu, residual) in [(false, false), (true, false), (false, true), (true, true)] {
        cases.push(case(
            match (gelu, residual) {
                (false, false) => "linear",
                (true, false) => "linear with GELU",
                (false, true) => "linear with residual",
                (true, true) => "linear with GELU and residual",
            },
            &[&[2, 5, 7], &[7, 9], &[9], &[2, 5, 9]],
            move |x, _| {
                let weight = Weight::Full(x[1].clone().reshape([7, 9]));
                let added = residual.then(|| x[3].clone().reshape([2, 5, 9]));
                let y = ops::linear(x[0].clone().reshape([2, 5, 7]), &weight, &x[2], added, gelu);
                y.reshape([90])
            },
        ));
    }
    cases.push(case(
        "linear with repeated residual, wide",
        &[&[3, 4, 8], &[8, 12], &[12], &[1, 4, 12]],
        |x, _| {
            let weight = Weight::Full(x[1].clone().reshape([8, 12]));
            let added = Some(x[3].clone().reshape([1, 4, 12]));
            let y = ops::linear(
                x[0].clone().reshape([3, 4, 8]),
                &weight,
                &x[2],
                added,
                false,
            );
            y.reshape([144])
        },
    ));
    for d in [8, 10] {
        cases.push(case(
            if d == 8 { "norm" } else { "norm, odd width" },
            &[&[6, d], &[d], &[d]],
            move |x, _| {
                ops::norm(x[0].clone().reshape([6, d]), &x[1], &x[2], 1e-6).reshape([6 * d])
            },
        ));
    }
    let causal = |block| AttentionMask::Causal { block };
    for (name, batch, heads, head_dim, mask) in [
        ("attention", 2, 2, 4, AttentionMask::Full),
        ("attention, odd head width", 2, 3, 5, AttentionMask::Full),
        // Enough for several queries an invocation.
        ("attention of many", 32, 2, 4, AttentionMask::Full),
        (
            "causal attention of many, odd head width",
            22,
            3,
            5,
            causal(2),
        ),
        ("causal attention", 2, 2, 4, causal(1)),
        ("causal attention, odd head width", 2, 3, 5, causal(1)),
        ("frame-causal attention", 2, 2, 4, causal(3)),
        ("frame-causal attention, odd head width", 2, 3, 5, causal(2)),
        ("frame-causal attention of one frame", 2, 3, 5, causal(7)),
    ] {
        let width = 3 * heads * head_dim;
        cases.push(case(name, &[&[batch, 7, width]], move |x, _| {
            ops::self_attention(x[0].clone().reshape([batch, 7, width]), heads, mask)
                .reshape([7 * batch * width / 3])
        }));
    }
    for turned in [false, true] {
        let (d, hidden, heads) = (8, 12, 2);
        let shapes: [&[usize]; 13] = [
            &[2, 5, d],
            &[d],
            &[d],
            &[d, 3 * d],
            &[3 * d],
            &[d, d],
            &[d],
            &[d],
            &[d],
            &[d, hidden],
            &[hidden],
            &[hidden, d],
            &[d],
        ];
        cases.push(case(
            match turned {
                false => "recomputed block",
                true => "recomputed block with rotation",
            },
            &shapes,
            move |x, device| {
                let matrix = |i: usize, size: [usize; 2]| Weight::Full(x[i].clone().reshape(size));
                let [qkv, proj, fc1, fc2] = [
                    matrix(3, [d, 3 * d]),
                    matrix(5, [d, d]),
                    matrix(9, [d, hidden]),
                    matrix(11, [hidden, d]),
                ];
                let layers = [
                    (&qkv, &x[4]),
                    (&proj, &x[6]),
                    (&fc1, &x[10]),
                    (&fc2, &x[12]),
                ];
                let table = Tensor::<1>::from_data(
                    TensorData::new(numbers(77, 5 * 2 * d / heads), [5 * 2 * d / heads]),
                    device,
                );
                let table = turned.then(|| table.reshape([5, 2 * d / heads]));
                let form = BlockForm {
                    heads,
                    eps: 1e-6,
                    mask: AttentionMask::Full,
                };
                let tokens = x[0].clone().reshape([2, 5, d]);
                let norms = [[&x[1], &x[2]], [&x[7], &x[8]]];
                let y = ops::recomputed_block(tokens, layers, norms, table.as_ref(), form);
                y.reshape([10 * d])
            },
        ));
    }
    for (heads, head_dim) in [(2, 8), (3, 6)] {
        let width = heads * head_dim;
        cases.push(case(
            if head_dim == 8 {
                "rotation"
            } else {
                "rotation, odd head width"
            },
            &[&[2, 5, 3 * width]],
            move |x, device| {
                let rope = Rope {
                    frequencies: Frequencies::Tiled,
                    pretrained_grid: None,
                };
                let turns = rope.table([5, 1, 1], head_dim, 0..5);
                let turns = TensorData::new(turns, [5, 2 * head_dim]);
                let turns = Tensor::<2>::from_data(turns, &device.clone().inner());
                let qkv = x[0].clone().reshape([2, 5, 3 * width]);
                ops::rotate(qkv, &turns, heads).reshape([30 * width])
            },
        ));
    }
    for (heads, head_dim) in [(2, 4), (3, 5)] {
        let width = heads * head_dim;
        cases.push(case(
            if head_dim == 4 {
                "attention of one query"
            } else {
                "attention of one query, odd head width"
            },
            &[&[width], &[2, 7, 2 * width]],
            move |x, _| {
                let kv = x[1].clone().reshape([2, 7, 2 * width]);
                ops::attend(x[0].clone(), kv, heads).reshape([2 * width])
            },
        ));
    }
    cases.push(case(
        "levels side by side",
        &[&[2, 3, 4], &[2, 3, 4]],
        |x, device| {
            let level = |i: usize| x[i].clone().reshape([2, 3, 4]);
            ops::beside(vec![level(0), level(1)], device).reshape([48])
        },
    ));
    cases.push(case("GELU", &[&[30]], |x, _| {
        ops::activate(x[0].clone(), Activation::Gelu)
    }));
    cases.push(case("SiLU", &[&[30]], |x, _| {
        ops::activate(x[0].clone(), Activation::Silu)
    }));
    cases.push(case(
        "multiply and add",
        &[&[2, 3, 6], &[2, 3, 6], &[2, 3, 6]],
        |x, _| {
            let [a, b, c] = [0, 1, 2].map(|i| x[i].clone().reshape([2, 3, 6]));
            ops::multiply_add(a, b, Some(c)).reshape([36])
        },
    ));
    cases.push(case(
        "multiply and add, repeated rows",
        &[&[4, 3, 8], &[3, 8], &[3, 8]],
        |x, _| {
            let [b, c] = [1, 2].map(|i| x[i].clone().reshape([3, 8]));
            ops::multiply_add(x[0].clone().reshape([4, 3, 8]), b, Some(c)).reshape([96])
        },
    ));
    cases.push(case(
        "multiply, a repeated row",
        &[&[5, 6], &[6]],
        |x, _| ops::multiply_add(x[0].clone().reshape([5, 6]), x[1].clone(), None).reshape([30]),
    ));
    cases.push(case("select", &[&[3, 2, 6], &[2, 6]], |x, device| {
        let index = [vec![0, 5, 5, 7], vec![6, 2, 7, 0]];
        let rows = Rows::new(&index, 8, device);
        let rest = Some(x[1].clone());
        ops::select(x[0].clone().reshape([3, 2, 6]), rest, &rows, None).reshape([48])
    }));
    for (name, distance) in [
        ("smooth L1", Distance::SmoothL1 { beta: 0.7 }),
        ("L1 to the power 1.5", Distance::L1 { power: 1.5 }),
        ("squared error", Distance::Mse),
    ] {
        cases.push(case(name, &[&[5, 6]], move |x, device| {
            // At least 0.5 from every input on either side: no step crosses 0, where the distances bend.
            let target: Vec<f32> = (0..30).map(|i| [1.5, -1.5][i % 2]).collect();
            let target = Tensor::<1>::from_data(TensorData::new(target, [30]), device);
            ops::distance(
                x[0].clone().reshape([5, 6]),
                target.reshape([5, 6]),
                distance,
            )
        }));
    }
    cases.push(case("sum", &[&[10], &[10]], |x, _| {
        ops::sum(x[0].clone(), x[1].clone())
    }));
    cases.push(case("mean over tokens", &[&[2, 3, 6]], |x, _| {
        ops::pooled(x[0].clone().reshape([2, 3, 6])).reshape([12])
    }));
    cases.push(case("batch norm", &[&[7, 6], &[6], &[6]], |x, _| {
        ops::batch_norm(x[0].clone().reshape([7, 6]), &x[1], &x[2], 1e-5)
            .0
            .reshape([42])
    }));
    cases
}

/// Numbers from −1 to 1 that are reproducible everywhere.
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (2.0 * f64::from(state >> 8) / 16_777_216.0 - 1.0) as f32
        })
        .collect()
}

/// Masked attention by its definition, in f64.
fn attention(qkv: &[f32], [batch, tokens, heads, head_dim]: [usize; 4], block: usize) -> Vec<f32> {
    let width = heads * head_dim;
    let at = |image: usize, token: usize, part: usize, i: usize| {
        f64::from(qkv[((image * tokens + token) * 3 + part) * width + i])
    };
    let mut out = Vec::with_capacity(batch * tokens * width);
    for image in 0..batch {
        for query in 0..tokens {
            for i in 0..width {
                let channels = i / head_dim * head_dim..(i / head_dim + 1) * head_dim;
                let score = |key| {
                    let products = channels
                        .clone()
                        .map(|i| at(image, query, 0, i) * at(image, key, 1, i));
                    (products.sum::<f64>() / (head_dim as f64).sqrt()).exp()
                };
                let seen = (0..tokens).filter(|key| key / block <= query / block);
                let (mixed, total) = seen.fold((0.0, 0.0), |(mixed, total), key| {
                    let share = score(key);
                    (mixed + share * at(image, key, 2, i), total + share)
                });
                out.push((mixed / total) as f32);
            }
        }
    }
    out
}

/// Checks attention against its definition, over shapes that fill no workgroup, no group of queries or keys and no last block.
pub async fn masked_attention(device: &Device, report: &mut Report) -> Result<(), String> {
    report.file("attention");
    for (shape, block) in [
        ([2, 9, 2, 4], 1),
        ([2, 9, 2, 4], 4),
        ([1, 70, 3, 5], 1),
        ([3, 70, 1, 6], 11),
        ([1, 131, 2, 3], 66),
        ([2, 5, 3, 7], 8),
        ([1, 1, 1, 1], 1),
        ([130, 1, 1, 3], 1),
        ([2, 131, 4, 5], 1),
        ([2, 131, 4, 8], 131),
        ([1, 513, 1, 2], 7),
        ([1, 514, 1, 2], 515),
    ] {
        let [batch, tokens, heads, head_dim] = shape;
        let width = 3 * heads * head_dim;
        let values: Vec<f32> = numbers(block as u32, batch * tokens * width)
            .iter()
            .map(|v| 3.0 * v)
            .collect();
        let expected = attention(&values, shape, block);
        let qkv = TensorData::new(values, [batch, tokens, width]);
        let qkv = Tensor::<3>::from_data(qkv, device);
        let mask = if block < tokens {
            AttentionMask::Causal { block }
        } else {
            AttentionMask::Full
        };
        let got = ops::self_attention(qkv, heads, mask);
        let got = read_values(got).await.map_err(|e| e.to_string())?;
        let difference = got
            .iter()
            .zip(&expected)
            .map(|(a, b)| f64::from((a - b).abs()))
            .fold(0.0, f64::max);
        report.number(
            &format!("{tokens} tokens in blocks of {block}, {heads} heads of {head_dim}"),
            difference,
            Quantity::Activation.tolerance(report.arithmetic()),
        );
    }
    Ok(())
}

/// Checks every operation that training uses.
pub async fn finite_differences(device: &Device, report: &mut Report) -> Result<(), String> {
    report.file("gradients");
    let tracking = device.clone().autodiff();
    for (number, case) in (0u32..).zip(cases()) {
        let values: Vec<Vec<f32>> = (0..)
            .zip(&case.shapes)
            .map(|(i, shape)| numbers(100 * number + i, shape.iter().product()))
            .collect();
        let upload = |values: &[f32], device: &Device| {
            Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
        };
        let leaves: Inputs = values
            .iter()
            .map(|v| upload(v, &tracking).require_grad())
            .collect();
        let output = (case.forward)(&leaves, &tracking);
        let weights = numbers(100 * number + 99, output.dims()[0]);
        let loss = ops::with_gradient(output, upload(&weights, device));
        let gradients = loss.backward();
        for (i, leaf) in leaves.iter().enumerate() {
            // An input that a case leaves unused has no gradient.
            let Some(gradient) = leaf.grad(&gradients) else {
                continue;
            };
            let gradient = read_values(gradient).await.map_err(|e| e.to_string())?;
            let direction = numbers(100 * number + 50 + i as u32, gradient.len());
            let mut ends = [0f64; 2];
            for (end, sign) in ends.iter_mut().zip([1.0, -1.0]) {
                let mut moved: Inputs = values.iter().map(|v| upload(v, device)).collect();
                let there: Vec<f32> = values[i]
                    .iter()
                    .zip(&direction)
                    .map(|(v, d)| v + sign * STEP * d)
                    .collect();
                moved[i] = upload(&there, device);
                let output = (case.forward)(&moved, device);
                let output = read_values(output).await.map_err(|e| e.to_string())?;
                *end = output
                    .iter()
                    .zip(&weights)
                    .map(|(y, w)| f64::from(*y) * f64::from(*w))
                    .sum();
            }
            let measured = (ends[0] - ends[1]) / (2.0 * f64::from(STEP));
            let said: f64 = gradient
                .iter()
                .zip(&direction)
                .map(|(g, d)| f64::from(*g) * f64::from(*d))
                .sum();
            let size: f64 = gradient
                .iter()
                .map(|g| f64::from(*g).abs())
                .sum::<f64>()
                .max(1.0);
            report.number(
                &format!("{}: input {i}, relative to the gradient's size", case.name),
                (measured - said).abs() / size,
                Quantity::Difference.tolerance(report.arithmetic()),
            );
        }
    }
    Ok(())
}

/// The value in f16 that is nearest to `x`, of which none is subnormal here.
fn nearest_half(x: f32) -> f32 {
    let x = f64::from(x);
    let step = (x.abs().log2().floor() - 10.0).exp2();
    ((x / step).round_ties_even() * step) as f32
}

/// Checks that a product with halved weights, and its gradients, are those of the rounded weights.
pub async fn halves(device: &Device, report: &mut Report) -> Result<(), String> {
    report.file("gradients");
    let tracking = device.clone().autodiff();
    let [rows, d_in, d_out] = [5, 7, 9];
    let on = |values: &[f32], device: &Device| {
        Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
    };
    let weights = numbers(7, d_in * d_out);
    let rounded: Vec<f32> = weights.iter().map(|&w| nearest_half(w)).collect();
    let mut results = Vec::new();
    for (values, halve) in [(&weights, true), (&rounded, false)] {
        let x = on(&numbers(8, rows * d_in), &tracking).require_grad();
        let weight = on(values, &tracking).require_grad();
        let matrix = weight.clone().reshape([d_in, d_out]);
        let matrix = match halve {
            true => Weight::Half(ops::halved(matrix)),
            false => Weight::Full(matrix),
        };
        let y = ops::linear(
            x.clone().reshape([rows, d_in]),
            &matrix,
            &on(&numbers(9, d_out), &tracking),
            None,
            false,
        );
        let slopes = on(&numbers(10, rows * d_out), device).reshape([rows, d_out]);
        let gradients = ops::with_gradient(y.clone(), slopes).backward();
        let gradient = |leaf: &Tensor<1>| leaf.grad(&gradients).ok_or("a leaf has no gradient");
        let (d_x, d_weight) = (gradient(&x)?, gradient(&weight)?);
        for tensor in [y.inner().reshape([rows * d_out]), d_x, d_weight] {
            results.push(read_values(tensor).await.map_err(|e| e.to_string())?);
        }
    }
    let (halved, full) = results.split_at(3);
    let names = [
        "product",
        "gradient of the input",
        "gradient of the weights",
    ];
    for ((name, halved), full) in names.iter().zip(halved).zip(full) {
        let difference = halved
            .iter()
            .zip(full)
            .map(|(a, b)| f64::from((a - b).abs()));
        report.number(
            &format!("weights in f16: {name}"),
            difference.fold(0.0, f64::max),
            Quantity::Gradient.tolerance(report.arithmetic()),
        );
    }
    Ok(())
}
