//! The exact (erf) GELU, in the one form that both backends compute.

use std::f32::consts::FRAC_1_SQRT_2;

use crate::exp::exp_of_negative;

/// Numerator and denominator, highest power first, of the rational approximation `erf(x) ≈ x · P(x²) / Q(x²)` on [-4, 4]
/// that Eigen and XLA use for f32 (`generic_fast_erf_float`). Outside, erf is ±1 in f32.
pub const ERF_P: [f32; 7] = [
    -2.726_142_3e-10,
    2.770_681_4e-8,
    -2.101_024e-6,
    -5.692_506_4e-5,
    -7.349_906_4e-4,
    -2.954_6e-3,
    -1.609_603_3e-2,
];
/// See [`ERF_P`].
pub const ERF_Q: [f32; 5] = [
    -1.456_607_2e-5,
    -2.133_740_6e-4,
    -1.682_827e-3,
    -7.373_329_3e-3,
    -1.426_473_9e-2,
];

/// `1 / √(2π)`.
pub const FRAC_1_SQRT_2_PI: f32 = 0.398_942_3;

/// `0.5 · x · (1 + erf(x / √2))`, without branches or calls, so that loops over it become SIMD.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

#[inline(always)]
fn erf(z: f32) -> f32 {
    let square = z * z;
    let polynomial =
        |coefficients: &[f32]| coefficients.iter().fold(0.0, |sum, c| sum * square + c);
    let inside = z * polynomial(&ERF_P) / polynomial(&ERF_Q);
    if z.abs() < 4.0 { inside } else { z.signum() }
}

/// Its derivative, `Φ(x) + x · φ(x)`.
#[inline(always)]
pub fn gelu_slope(x: f32) -> f32 {
    let z = x * FRAC_1_SQRT_2;
    let density = exp_of_negative(-z * z) * FRAC_1_SQRT_2_PI;
    0.5 * (1.0 + erf(z)) + x * density
}

#[cfg(test)]
mod tests {
    use super::{gelu, gelu_slope};

    #[test]
    fn the_slope_is_the_derivative() {
        for i in -600..=600 {
            let x = f64::from(i) * 1e-2;
            let exact = |x: f64| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
            let slope = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
            let error = (f64::from(gelu_slope(x as f32)) - slope).abs();
            assert!(error <= 2e-6, "the slope at {x} is off by {error}");
        }
    }

    #[test]
    fn is_within_the_fixtures_tolerance() {
        for i in -80_000..=80_000 {
            let x = i as f32 * 1e-4;
            let wide = f64::from(x);
            let exact = 0.5 * wide * (1.0 + libm::erf(wide / std::f64::consts::SQRT_2));
            let error = (f64::from(gelu(x)) - exact).abs();
            // What the fixtures allow.
            assert!(error <= 2e-6, "gelu({x}) is off by {error}");
        }
        assert_eq!(gelu(50.0), 50.0);
        assert_eq!(gelu(-50.0), 0.0);
    }
}
