//! The exact (erf) GELU, in the one form that both backends compute.

use std::f32::consts::FRAC_1_SQRT_2;

use crate::exp::exp_of_negative;
use crate::lanes::{Elementwise, Lanes, polynomial};

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

/// `0.5 · x · (1 + erf(x / √2))`.
pub struct Gelu;

impl Elementwise for Gelu {
    #[inline(always)]
    fn of<const N: usize>(&self, x: [Lanes; N]) -> [Lanes; N] {
        let erf = erf(x.map(|x| x * Lanes::splat(FRAC_1_SQRT_2)));
        std::array::from_fn(|i| {
            let half = x[i] * Lanes::splat(0.5);
            half.times_plus(erf[i], half)
        })
    }
}

/// The derivative of [`Gelu`], `Φ(x) + x · φ(x)`.
pub struct GeluSlope;

impl Elementwise for GeluSlope {
    #[inline(always)]
    fn of<const N: usize>(&self, x: [Lanes; N]) -> [Lanes; N] {
        let z = x.map(|x| x * Lanes::splat(FRAC_1_SQRT_2));
        let erf = erf(z);
        let density = exp_of_negative(z.map(|z| z * (Lanes::splat(0.0) - z)));
        let half = Lanes::splat(0.5);
        std::array::from_fn(|i| {
            let slope = x[i] * Lanes::splat(FRAC_1_SQRT_2_PI);
            slope.times_plus(density[i], erf[i].times_plus(half, half))
        })
    }
}

#[inline(always)]
fn erf<const N: usize>(z: [Lanes; N]) -> [Lanes; N] {
    let within = |x: Lanes, limit| {
        x.at_most(Lanes::splat(limit))
            .at_least(Lanes::splat(-limit))
    };
    // A little further than ±4, where the approximation has passed ±1.
    let z = z.map(|z| within(z, 4.1));
    let square = z.map(|z| z * z);
    let (p, q) = (polynomial(&ERF_P, &square), polynomial(&ERF_Q, &square));
    std::array::from_fn(|i| within(z[i] * p[i] / q[i], 1.0))
}

#[cfg(test)]
mod tests {
    use super::{Gelu, GeluSlope};
    use crate::lanes::one;

    #[test]
    fn the_slope_is_the_derivative() {
        for i in -600..=600 {
            let x = f64::from(i) * 1e-2;
            let exact = |x: f64| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
            let slope = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
            let error = (f64::from(one(x as f32, &GeluSlope)) - slope).abs();
            assert!(error <= 2e-6, "the slope at {x} is off by {error}");
        }
    }

    #[test]
    fn is_within_the_fixtures_tolerance() {
        for i in -80_000..=80_000 {
            let x = i as f32 * 1e-4;
            let wide = f64::from(x);
            let exact = 0.5 * wide * (1.0 + libm::erf(wide / std::f64::consts::SQRT_2));
            let error = (f64::from(one(x, &Gelu)) - exact).abs();
            // What the fixtures allow.
            assert!(error <= 2e-6, "gelu({x}) is off by {error}");
        }
        assert_eq!(one(50.0, &Gelu), 50.0);
        assert_eq!(one(-50.0, &Gelu), 0.0);
        assert_eq!(one(f32::MAX, &Gelu), f32::MAX);
        assert!(one(f32::NAN, &Gelu).is_nan());
    }
}
