//! The exact (erf) GELU as WGSL, from the numbers that the CPU computes it with.

use std::f32::consts::FRAC_1_SQRT_2;

use webjepa_kernels::gelu::{ERF_P, ERF_Q, FRAC_1_SQRT_2_PI};

/// GELU as a WGSL function of a `vec4<f32>`.
pub fn wgsl() -> String {
    let polynomial = |coefficients: &[f32]| {
        let (first, rest) = coefficients.split_first().expect("a polynomial has terms");
        rest.iter().fold(format!("vec4<f32>({first:?})"), |sum, c| {
            format!("fma({sum}, s, vec4<f32>({c:?}))")
        })
    };
    format!(
        "fn erf(z: vec4<f32>) -> vec4<f32> {{
    let s = z * z;
    let p = {};
    let q = {};
    return select(sign(z), z * p / q, abs(z) < vec4<f32>(4.0));
}}
fn gelu(x: vec4<f32>) -> vec4<f32> {{ return 0.5 * x * (1.0 + erf(x * {FRAC_1_SQRT_2:?})); }}
",
        polynomial(&ERF_P),
        polynomial(&ERF_Q)
    )
}

/// The derivative as a WGSL function of a `vec4<f32>`, to follow [`wgsl`].
pub fn wgsl_slope() -> String {
    format!(
        "fn gelu_slope(x: vec4<f32>) -> vec4<f32> {{
    return 0.5 * (1.0 + erf(x * {FRAC_1_SQRT_2:?})) + x * exp(-0.5 * x * x) * {FRAC_1_SQRT_2_PI:?};
}}
"
    )
}
