//! Loops over single elements: activations, the optimizer, conversions.

use half::f16;

use crate::exp::Logistic;
use crate::gelu::{Gelu, GeluSlope};
use crate::lanes::map;

/// GELU in place.
#[inline(never)]
pub fn gelu(x: &mut [f32]) {
    map(x, &Gelu);
}

/// ReLU in place.
#[inline(never)]
pub fn relu(x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v = v.max(0.0));
}

/// SiLU in place: `x / (1 + e^−x)`.
#[inline(never)]
pub fn silu(x: &mut [f32]) {
    let mut shares = x.to_vec();
    map(&mut shares, &Logistic);
    multiply(x, &shares);
}

/// Gradient of [`gelu`] at `x`.
#[inline(never)]
pub fn gelu_gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    let mut d = x.to_vec();
    map(&mut d, &GeluSlope);
    multiply(&mut d, dy);
    d
}

/// Gradient of [`relu`] at `x`.
#[inline(never)]
pub fn relu_gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    let pairs = x.iter().zip(dy);
    pairs
        .map(|(&x, &g)| if x > 0.0 { g } else { 0.0 })
        .collect()
}

/// Gradient of [`silu`] at `x`.
#[inline(never)]
pub fn silu_gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    let mut d = x.to_vec();
    map(&mut d, &Logistic);
    for ((share, x), g) in d.iter_mut().zip(x).zip(dy) {
        *share *= g * (1.0 + x * (1.0 - *share));
    }
    d
}

/// `y *= x`.
#[inline(never)]
pub fn multiply(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
}

/// `factor · x`.
#[inline(never)]
pub fn scaled(x: &[f32], factor: f32) -> Vec<f32> {
    x.iter().map(|v| v * factor).collect()
}

/// One AdamW step of a parameter and its two moments; `numbers` are `[1 − lr · weight_decay, beta1, beta2, eps,
/// lr / (1 − beta1^step), 1 / √(1 − beta2^step), scale of the gradient]`.
#[inline(never)]
pub fn adamw(
    parameter: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    gradient: &[f32],
    [keep, beta1, beta2, eps, rate, correction, scale]: [f32; 7],
) {
    let state = parameter.iter_mut().zip(first).zip(second);
    for (((p, m), v), &g) in state.zip(gradient) {
        let g = g * scale;
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        *p = keep * *p - rate * *m / (v.sqrt() * correction + eps);
    }
}

/// An exponential moving average: `momentum · average + (1 − momentum) · value`.
#[inline(never)]
pub fn averaged(average: &mut [f32], value: &[f32], momentum: f32) {
    let pairs = average.iter_mut().zip(value);
    pairs.for_each(|(k, q)| *k = momentum * *k + (1.0 - momentum) * q);
}

/// Adds the squares of `x`, or of its differences to `minus`, to the lanes of a running sum.
#[inline(never)]
pub fn add_squares(lanes: &mut [f32], x: &[f32], minus: Option<&[f32]>) {
    match minus {
        None => {
            for chunk in x.chunks(lanes.len()) {
                let pairs = lanes.iter_mut().zip(chunk);
                pairs.for_each(|(lane, v)| *lane += v * v);
            }
        }
        Some(minus) => {
            for (chunk, minus) in x.chunks(lanes.len()).zip(minus.chunks(lanes.len())) {
                let pairs = lanes.iter_mut().zip(chunk).zip(minus);
                pairs.for_each(|((lane, v), m)| *lane += (v - m) * (v - m));
            }
        }
    }
}

/// The nearest values in f16; what lies beyond its largest becomes that.
#[inline(never)]
pub fn halved(x: &[f32]) -> Vec<f16> {
    let largest = f16::MAX.to_f32();
    let nearest = |v: &f32| f16::from_f32(v.clamp(-largest, largest));
    x.iter().map(nearest).collect()
}

/// f16 as f32.
#[inline(never)]
pub fn widened(x: &[f16]) -> Vec<f32> {
    x.iter().map(|v| v.to_f32()).collect()
}

/// Rows of int8 as f32, each column with what a step of it is worth.
#[inline(never)]
pub fn dequantized(x: &[i8], steps: &[f32]) -> Vec<f32> {
    x.chunks_exact(steps.len())
        .flat_map(|row| row.iter().zip(steps).map(|(&v, s)| f32::from(v) * s))
        .collect()
}
