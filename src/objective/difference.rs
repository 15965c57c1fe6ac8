//! Finite differences, to which the tests compare gradients.

/// The step: with points on a grid that it is a multiple of, every perturbed f32 is exact.
const STEP: f32 = 1.0 / 512.0;
/// Perturbed points are at most this far from where they started.
pub const REACH: f64 = 2.0 * STEP as f64;

/// Reproducible values in [-2, 2), multiples of 2⁻¹².
pub fn points(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769) ^ 0x5bd1_e995;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 18) as f32 / 4096.0 - 2.0
        })
        .collect()
}

/// Compares `gradient` with the central difference of fourth order of `loss` at `at`, coordinate by coordinate.
pub fn assert_gradient(at: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    assert_eq!(at.len(), gradient.len());
    // What f32 holds of the largest component, and what the stencil leaves out.
    let largest = gradient
        .iter()
        .fold(0f64, |m, &g| m.max(f64::from(g.abs())));
    let tolerance = 1.2e-7 * largest + 2e-9;
    for i in 0..at.len() {
        let shifted = |steps: f32| {
            let mut point = at.to_vec();
            point[i] += steps * STEP;
            loss(&point)
        };
        let slope = (8.0 * (shifted(1.0) - shifted(-1.0)) - (shifted(2.0) - shifted(-2.0)))
            / (12.0 * f64::from(STEP));
        let error = (slope - f64::from(gradient[i])).abs();
        assert!(
            error <= tolerance,
            "component {i} is {} and the difference says {slope}: {error} apart",
            gradient[i]
        );
    }
}
