//! Exponentials without branches or calls, so that loops over them become SIMD.

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub fn logistic(x: f32) -> f32 {
    let e = exp_of_negative(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// `e^x` for `x ≤ 0`, 0 below -87, without branches or calls: Cephes' `expf`, relative error below 2e-7.
#[inline(always)]
pub fn exp_of_negative(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 6] = [
        1.987_569_1e-4,
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    // ln 2 in two parts, so that the reduced argument is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let power = (x.max(-88.0) * std::f32::consts::LOG2_E + 0.5).floor();
    let r = x.max(-88.0) - power * LN_2[0] - power * LN_2[1];
    let polynomial = COEFFICIENTS.iter().fold(0.0, |sum, c| sum * r + c);
    let two_to_power = f32::from_bits(((power as i32 + 127) << 23) as u32);
    let value = (polynomial * r * r + r + 1.0) * two_to_power;
    if x < -87.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::exp_of_negative;

    #[test]
    fn exp_is_exact_to_rounding() {
        for i in 0..=86_000 {
            let x = -(i as f32) * 1e-3;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_of_negative(x)) - exact).abs() / exact;
            assert!(error <= 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert_eq!(exp_of_negative(-1e9), 0.0);
    }
}
