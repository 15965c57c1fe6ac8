//! Four numbers at once, for loops that compilers do not turn into fast SIMD by themselves.

use std::ops::{Add, Div, Mul, Sub};

#[cfg(target_family = "wasm")]
use wasm as register;

#[cfg(not(target_family = "wasm"))]
use array as register;

/// Numbers of a register.
pub const LANES: usize = 4;

/// Registers that [`map`] has in hand at once: constants, which engines make anew at each use, then serve several, and the latency
/// of one's operations is hidden behind the others'.
const AT_ONCE: usize = 4;

/// A register of four numbers.
#[derive(Clone, Copy)]
pub struct Lanes(register::Register);

impl Lanes {
    #[inline(always)]
    pub fn splat(value: f32) -> Self {
        Self(register::splat(value))
    }

    #[inline(always)]
    pub fn load(values: &[f32; LANES]) -> Self {
        Self(register::load(values))
    }

    #[inline(always)]
    pub fn values(self) -> [f32; LANES] {
        register::values(self.0)
    }

    /// `self · b + c`.
    #[inline(always)]
    pub fn times_plus(self, b: Self, c: Self) -> Self {
        self * b + c
    }

    /// The same; with relaxed SIMD rounded once where the machine can, and then in half the time. Only what has that feature itself
    /// can be one function with it.
    #[cfg_attr(
        all(target_family = "wasm", feature = "relaxed-simd"),
        target_feature(enable = "relaxed-simd")
    )]
    #[inline]
    pub fn fused_times_plus(self, b: Self, c: Self) -> Self {
        #[cfg(all(target_family = "wasm", feature = "relaxed-simd"))]
        return Self(std::arch::wasm32::f32x4_relaxed_madd(self.0, b.0, c.0));
        #[cfg(not(all(target_family = "wasm", feature = "relaxed-simd")))]
        self.times_plus(b, c)
    }

    /// The lesser of the two; what is not a number stays so.
    #[inline(always)]
    pub fn at_most(self, limit: Self) -> Self {
        Self(register::lesser(self.0, limit.0))
    }

    /// The greater of the two; what is not a number stays so.
    #[inline(always)]
    pub fn at_least(self, limit: Self) -> Self {
        Self(register::greater(self.0, limit.0))
    }

    /// Without its sign.
    #[inline(always)]
    pub fn magnitude(self) -> Self {
        Self(register::magnitude(self.0))
    }

    /// `then` where `self` is negative, `otherwise` elsewhere.
    #[inline(always)]
    pub fn where_negative(self, then: Self, otherwise: Self) -> Self {
        Self(register::where_negative(self.0, then.0, otherwise.0))
    }

    /// The nearest whole number, and 2 to its power, from -127, where that is 0, to 127.
    #[inline(always)]
    pub fn rounded_with_power_of_two(self) -> (Self, Self) {
        // 1.5 · 2^23: a sum with it has no bits for fractions, and the whole number in the lowest ones.
        let magic = Self::splat(12_582_912.0);
        let shifted = self + magic;
        (shifted - magic, Self(register::power_of_two(shifted.0)))
    }
}

macro_rules! operator {
    ($($operator:ident, $method:ident;)*) => {$(
        impl $operator for Lanes {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(register::$method(self.0, other.0))
            }
        }
    )*};
}

operator! {
    Add, add;
    Sub, sub;
    Mul, mul;
    Div, div;
}

/// What is computed of each element by itself.
pub trait Elementwise {
    /// Of `N` registers at once.
    fn of<const N: usize>(&self, x: [Lanes; N]) -> [Lanes; N];
}

/// Replaces all elements by what is computed of them.
#[inline(always)]
pub fn map(x: &mut [f32], f: &impl Elementwise) {
    let (registers, rest) = x.as_chunks_mut::<LANES>();
    let (groups, registers) = registers.as_chunks_mut::<AT_ONCE>();
    for group in groups {
        let y = f.of(group.each_ref().map(Lanes::load));
        *group = y.map(Lanes::values);
    }
    for register in registers {
        let [y] = f.of([Lanes::load(register)]);
        *register = y.values();
    }
    if !rest.is_empty() {
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        let [y] = f.of([Lanes::load(&padded)]);
        rest.copy_from_slice(&y.values()[..rest.len()]);
    }
}

/// What is computed of one number.
#[inline(always)]
pub fn one(x: f32, f: &impl Elementwise) -> f32 {
    f.of([Lanes::splat(x)])[0].values()[0]
}

/// A polynomial, coefficients from the highest power down, of each register.
#[inline(always)]
pub fn polynomial<const N: usize, const C: usize>(
    coefficients: &[f32; C],
    x: &[Lanes; N],
) -> [Lanes; N] {
    let mut sum = [Lanes::splat(coefficients[0]); N];
    for &c in &coefficients[1..] {
        let c = Lanes::splat(c);
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum = sum.times_plus(x, c);
        }
    }
    sum
}

/// The columns of four rows.
#[inline(always)]
pub fn transposed(rows: [Lanes; LANES]) -> [Lanes; LANES] {
    register::transposed(rows.map(|row| row.0)).map(Lanes)
}

#[cfg(target_family = "wasm")]
mod wasm {
    use super::LANES;
    use std::arch::wasm32::*;

    pub type Register = v128;

    pub use std::arch::wasm32::{
        f32x4_add as add, f32x4_div as div, f32x4_mul as mul, f32x4_pmax as greater,
        f32x4_pmin as lesser, f32x4_splat as splat, f32x4_sub as sub,
    };

    #[inline(always)]
    pub fn load(&[a, b, c, d]: &[f32; LANES]) -> Register {
        f32x4(a, b, c, d)
    }

    #[inline(always)]
    pub fn values(register: Register) -> [f32; LANES] {
        [
            f32x4_extract_lane::<0>(register),
            f32x4_extract_lane::<1>(register),
            f32x4_extract_lane::<2>(register),
            f32x4_extract_lane::<3>(register),
        ]
    }

    #[inline(always)]
    pub fn magnitude(x: Register) -> Register {
        f32x4_abs(x)
    }

    #[inline(always)]
    pub fn where_negative(x: Register, then: Register, otherwise: Register) -> Register {
        v128_bitselect(then, otherwise, f32x4_lt(x, f32x4_splat(0.0)))
    }

    #[inline(always)]
    pub fn power_of_two(shifted: Register) -> Register {
        i32x4_add(i32x4_shl(shifted, 23), i32x4_splat(127 << 23))
    }

    #[inline(always)]
    pub fn transposed([a, b, c, d]: [Register; LANES]) -> [Register; LANES] {
        let (ac_low, ac_high) = (
            i32x4_shuffle::<0, 4, 1, 5>(a, c),
            i32x4_shuffle::<2, 6, 3, 7>(a, c),
        );
        let (bd_low, bd_high) = (
            i32x4_shuffle::<0, 4, 1, 5>(b, d),
            i32x4_shuffle::<2, 6, 3, 7>(b, d),
        );
        [
            i32x4_shuffle::<0, 4, 1, 5>(ac_low, bd_low),
            i32x4_shuffle::<2, 6, 3, 7>(ac_low, bd_low),
            i32x4_shuffle::<0, 4, 1, 5>(ac_high, bd_high),
            i32x4_shuffle::<2, 6, 3, 7>(ac_high, bd_high),
        ]
    }
}

/// What runs outside of browsers.
#[cfg(not(target_family = "wasm"))]
mod array {
    use super::LANES;

    pub type Register = [f32; LANES];

    macro_rules! each {
        ($($name:ident = |$a:ident, $b:ident| $value:expr;)*) => {$(
            #[inline(always)]
            pub fn $name(a: Register, b: Register) -> Register {
                std::array::from_fn(|i| {
                    let ($a, $b) = (a[i], b[i]);
                    $value
                })
            }
        )*};
    }

    each! {
        add = |a, b| a + b;
        sub = |a, b| a - b;
        mul = |a, b| a * b;
        div = |a, b| a / b;
        lesser = |a, b| if b < a { b } else { a };
        greater = |a, b| if a < b { b } else { a };
    }

    #[inline(always)]
    pub fn splat(value: f32) -> Register {
        [value; LANES]
    }

    #[inline(always)]
    pub fn load(values: &Register) -> Register {
        *values
    }

    #[inline(always)]
    pub fn values(register: Register) -> Register {
        register
    }

    #[inline(always)]
    pub fn magnitude(x: Register) -> Register {
        x.map(f32::abs)
    }

    #[inline(always)]
    pub fn where_negative(x: Register, then: Register, otherwise: Register) -> Register {
        std::array::from_fn(|i| if x[i] < 0.0 { then[i] } else { otherwise[i] })
    }

    #[inline(always)]
    pub fn power_of_two(shifted: Register) -> Register {
        shifted.map(|v| f32::from_bits((v.to_bits() << 23).wrapping_add(127 << 23)))
    }

    #[inline(always)]
    pub fn transposed(rows: [Register; LANES]) -> [Register; LANES] {
        std::array::from_fn(|column| rows.map(|row| row[column]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Halves;

    impl Elementwise for Halves {
        fn of<const N: usize>(&self, x: [Lanes; N]) -> [Lanes; N] {
            x.map(|x| x / Lanes::splat(2.0))
        }
    }

    #[test]
    fn every_element_is_replaced_once_whatever_the_length() {
        for length in 0..40 {
            let mut x: Vec<f32> = (0..length).map(|i| i as f32 + 1.0).collect();
            map(&mut x, &Halves);
            let halves = x.iter().enumerate();
            assert!(halves.into_iter().all(|(i, &v)| v == (i + 1) as f32 / 2.0));
        }
    }

    #[test]
    fn powers_of_two_are_exact() {
        for power in -126..=127 {
            for offset in [-0.4, 0.0, 0.4] {
                let (whole, value) =
                    Lanes::splat(power as f32 + offset).rounded_with_power_of_two();
                assert_eq!(whole.values(), [power as f32; LANES]);
                assert_eq!(value.values(), [2f32.powi(power); LANES]);
            }
        }
        assert_eq!(
            Lanes::splat(-127.0).rounded_with_power_of_two().1.values(),
            [0.0; LANES]
        );
    }
}
