//! Exponentials without branches or calls.

use crate::lanes::{Elementwise, Lanes, polynomial};

/// Coefficients of Cephes' `expf`, of the square of the reduced argument.
const COEFFICIENTS: [f32; 6] = [
    1.987_569_1e-4,
    1.398_2e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_5e-1,
    0.5,
];

/// ln 2 in two parts, so that the reduced argument is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `e^x` for `x ≤ 0`, relative error below 2e-7 down to -87 and 0 from -88 on: Cephes' `expf`.
#[inline(always)]
pub fn exp_of_negative<const N: usize>(x: [Lanes; N]) -> [Lanes; N] {
    let x = x.map(|x| x.at_least(Lanes::splat(-88.0)));
    let powers = x.map(|x| {
        let (whole, power) =
            (x * Lanes::splat(std::f32::consts::LOG2_E)).rounded_with_power_of_two();
        let r = whole.times_plus(Lanes::splat(-LN_2[0]), x);
        (whole.times_plus(Lanes::splat(-LN_2[1]), r), power)
    });
    let r = powers.map(|(r, _)| r);
    let sum = polynomial(&COEFFICIENTS, &r);
    std::array::from_fn(|i| {
        let value = (sum[i] * r[i]).times_plus(r[i], r[i]) + Lanes::splat(1.0);
        value * powers[i].1
    })
}

/// `e^((x − shift) · scale)`, where that is negative or 0.
pub struct Exp {
    pub shift: f32,
    pub scale: f32,
}

impl Elementwise for Exp {
    #[inline(always)]
    fn of<const N: usize>(&self, x: [Lanes; N]) -> [Lanes; N] {
        let (shift, scale) = (Lanes::splat(self.shift), Lanes::splat(self.scale));
        exp_of_negative(x.map(|x| (x - shift) * scale))
    }
}

/// `1 / (1 + e^−x)`.
pub struct Logistic;

impl Elementwise for Logistic {
    #[inline(always)]
    fn of<const N: usize>(&self, x: [Lanes; N]) -> [Lanes; N] {
        let one = Lanes::splat(1.0);
        let zero = Lanes::splat(0.0);
        let e = exp_of_negative(x.map(|x| zero - x.magnitude()));
        std::array::from_fn(|i| x[i].where_negative(e[i], one) / (one + e[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::{Exp, Logistic};
    use crate::lanes::one;

    #[test]
    fn exp_is_exact_to_rounding() {
        let exp = |x| {
            one(
                x,
                &Exp {
                    shift: 0.0,
                    scale: 1.0,
                },
            )
        };
        for i in 0..=87_000 {
            let x = -(i as f32) * 1e-3;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error <= 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_logistic_function_is_its_definition() {
        for i in -50_000..=50_000 {
            let x = i as f32 * 2e-3;
            let exact = (1.0 + f64::from(-x).exp()).recip();
            let error = (f64::from(one(x, &Logistic)) - exact).abs();
            assert!(error <= 2e-7, "logistic({x}) is off by {error}");
        }
        assert!(one(f32::NAN, &Logistic).is_nan());
    }
}
