//! SIGReg: how far embeddings are from an isotropic Gaussian, in every published variant.
//!
//! The embeddings are projected on many random directions, and each projection `y` of the `N` samples goes through the
//! Epps–Pulley test, which compares its characteristic function with the Gaussian's `φ(t) = exp(-t²/2)` at knots `t_j`:
//!
//! `T = N · Σ_j w_j · φ(t_j) · [(mean cos(t_j·y) − φ(t_j))² + (mean sin(t_j·y))²]`
//!
//! The loss is the mean of `T` over directions. The variants differ in the knots, in the quadrature weights `w_j`, in the
//! factor `N`, and in the number of directions.
//!
//! # How to read the number
//!
//! It does not fall to 0. Standard Gaussian samples score [`SigReg::floor`] on average, 1.05 for any `N` with the knots of
//! the library: that is the scatter of `N` samples. A batch of equal embeddings at the origin, a total collapse, scores
//! [`SigReg::collapsed`], 0.402 · `N` with the same knots. Without the factor `N` (EB-JEPA) both are divided by `N`. A
//! weight of this loss is therefore worth something else at another batch size or in another variant.

use super::{checked, combined};
use crate::rng::Generator;
use crate::{Error, Result};

const MAX_KNOTS: usize = 1 << 12;
const MAX_SLICES: usize = 1 << 16;
/// How far from 1 the length of a given direction may be: what a unit vector loses when it is printed with few digits.
const UNIT_TOLERANCE: f64 = 1e-4;

/// Where the integral over `t` is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quadrature {
    /// Knots on `[0, t_max]`, `dt` apart; the other half of the axis is the same by symmetry. Weights `2·dt`, and `dt` at
    /// both ends.
    HalfIntervalDoubled,
    /// Knots on `[-t_max, t_max]`, `dt` apart, and the trapezoid rule: weights `dt`, and `dt/2` at both ends.
    FullIntervalTrapezoid,
}

/// A variant of SIGReg. Methods that cannot fail are for variants that pass [`check`](Self::check).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SigReg {
    /// Where the integral over `t` is sampled.
    pub quadrature: Quadrature,
    /// The last knot.
    pub t_max: f64,
    /// Number of knots.
    pub knots: usize,
    /// Whether the statistic is multiplied by the number of samples.
    pub times_n: bool,
    /// Number of directions, drawn anew in every step.
    pub slices: usize,
}

impl SigReg {
    /// The variants by name: LeJEPA's library (with the number of directions that its examples pass), the listing of its
    /// paper, its minimal example, stable-pretraining, LeWorldModel, and EB-JEPA (there called BCS).
    pub const PRESETS: [(&str, Self); 6] = [
        ("library", Self::half(1024)),
        ("paper", Self::full(5.0, 17, true)),
        ("minimal", Self::half(256)),
        ("stable-pretraining", Self::half(1024)),
        ("lewm", Self::half(1024)),
        ("eb-jepa", Self::full(3.0, 10, false)),
    ];

    const fn half(slices: usize) -> Self {
        Self {
            quadrature: Quadrature::HalfIntervalDoubled,
            t_max: 3.0,
            knots: 17,
            times_n: true,
            slices,
        }
    }

    const fn full(t_max: f64, knots: usize, times_n: bool) -> Self {
        Self {
            quadrature: Quadrature::FullIntervalTrapezoid,
            t_max,
            knots,
            times_n,
            slices: 256,
        }
    }

    /// One of [`PRESETS`](Self::PRESETS).
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other name.
    pub fn preset(name: &str) -> Result<Self> {
        Self::PRESETS
            .into_iter()
            .find(|&(n, _)| n == name)
            .map(|(_, variant)| variant)
            .ok_or_else(|| {
                let names = Self::PRESETS.map(|(n, _)| n).join(", ");
                Error::BadConfig(format!(
                    "there is no SIGReg variant of this name: use one of {names}"
                ))
            })
    }

    /// # Errors
    /// [`Error::BadConfig`] when a number is out of its range.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::BadConfig(format!("SIGReg: {what}")));
        if !(self.t_max > 0.0 && self.t_max.is_finite()) {
            return wrong(&format!(
                "tMax is {}; use a number greater than 0",
                self.t_max
            ));
        }
        if !(2..=MAX_KNOTS).contains(&self.knots) {
            return wrong(&format!(
                "{} knots; use 2 to {MAX_KNOTS}, published are 10 and 17",
                self.knots
            ));
        }
        if !(1..=MAX_SLICES).contains(&self.slices) {
            return wrong(&format!(
                "{} directions; use 1 to {MAX_SLICES}, published are 256 and 1024",
                self.slices
            ));
        }
        Ok(())
    }

    /// Distance between knots.
    fn step(&self) -> f64 {
        let intervals = (self.knots - 1) as f64;
        match self.quadrature {
            Quadrature::HalfIntervalDoubled => self.t_max / intervals,
            Quadrature::FullIntervalTrapezoid => 2.0 * self.t_max / intervals,
        }
    }

    /// The knots `t_j`.
    pub fn knots(&self) -> Vec<f64> {
        let first = match self.quadrature {
            Quadrature::HalfIntervalDoubled => 0.0,
            Quadrature::FullIntervalTrapezoid => -self.t_max,
        };
        let step = self.step();
        (0..self.knots).map(|j| first + j as f64 * step).collect()
    }

    /// The factors `w_j · φ(t_j)` of the knots.
    pub fn weights(&self) -> Vec<f64> {
        let inner = match self.quadrature {
            Quadrature::HalfIntervalDoubled => 2.0 * self.step(),
            Quadrature::FullIntervalTrapezoid => self.step(),
        };
        let last = self.knots - 1;
        let weight = |j| if j == 0 || j == last { 0.5 } else { 1.0 } * inner;
        let knots = self.knots().into_iter().enumerate();
        knots.map(|(j, t)| weight(j) * gaussian(t)).collect()
    }

    /// `Σ_j w_j · φ_j · f(φ_j)`, times `N` where the variant has that factor.
    fn sum(&self, n: usize, f: impl Fn(f64) -> f64) -> f64 {
        let knots = self.knots().into_iter().zip(self.weights());
        self.scale(n) * knots.map(|(t, w)| w * f(gaussian(t))).sum::<f64>()
    }

    fn scale(&self, n: usize) -> f64 {
        if self.times_n { n as f64 } else { 1.0 }
    }

    /// What `n` samples of a standard Gaussian score on average: `n` independent `exp(i·t·y)` have the mean `φ` and
    /// scatter by `(1 − φ²) / n` around it.
    pub fn floor(&self, n: usize) -> f64 {
        self.sum(n, |phi| (1.0 - phi * phi) / n as f64)
    }

    /// What `n` samples score that all lie at the origin.
    pub fn collapsed(&self, n: usize) -> f64 {
        self.sum(n, |phi| (1.0 - phi).powi(2))
    }

    /// Directions for embeddings of `d` values: the columns of a `[d, slices]` matrix of standard normals, filled row by
    /// row. The published systems seed the generator with the global step, so that every step has its own.
    ///
    /// # Errors
    /// [`Error::BadConfig`] as [`check`](Self::check); [`Error::BadInput`] when `d` is 0.
    pub fn draw(&self, d: usize, generator: &mut impl Generator) -> Result<Directions> {
        self.check()?;
        if d == 0 {
            return Err(Error::BadInput(
                "there is no direction among embeddings of 0 values; pass embeddings with a width"
                    .to_owned(),
            ));
        }
        let mut matrix = vec![0.0; d * self.slices];
        generator.fill_normal(&mut matrix);
        let mut values = columns(&matrix, self.slices);
        for direction in values.chunks_exact_mut(d) {
            let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
            if length > 0.0 {
                direction.iter_mut().for_each(|v| *v /= length);
            } else {
                // A generator of f32 numbers does give a 0 from time to time, which is all of a direction where d is 1.
                direction[0] = 1.0;
            }
        }
        Ok(Directions { d, values })
    }

    /// The statistic of each direction: `x [groups, n, d]` → `[groups, slices]`. A group is a test of its own: a view of
    /// LeJEPA and EB-JEPA, a time step of LeWorldModel.
    ///
    /// # Errors
    /// [`Error::BadConfig`] as [`check`](Self::check); [`Error::BadInput`] when `x` is not `[groups, n, d]` or the
    /// directions are of another `d`.
    pub fn statistics(
        &self,
        x: &[f32],
        shape: [usize; 3],
        directions: &Directions,
    ) -> Result<Vec<f64>> {
        self.run(x, shape, directions, None)
    }

    /// The mean statistic of `x [groups, n, d]` over groups and directions, and its gradient.
    ///
    /// # Errors
    /// As [`statistics`](Self::statistics).
    pub fn evaluate(
        &self,
        x: &[f32],
        shape: [usize; 3],
        directions: &Directions,
    ) -> Result<Evaluated> {
        let mut gradient = vec![0.0; x.len()];
        let statistics = self.run(x, shape, directions, Some(&mut gradient))?;
        Ok(Evaluated {
            mean: mean(&statistics),
            gradient: combined(&[(1.0, &gradient)]),
        })
    }

    /// The statistics; adds the gradient of their mean to `gradient`, which has the length of `x`.
    pub(super) fn run(
        &self,
        x: &[f32],
        [groups, n, d]: [usize; 3],
        directions: &Directions,
        mut gradient: Option<&mut [f64]>,
    ) -> Result<Vec<f64>> {
        self.check()?;
        checked("a batch of embeddings", x, &[groups, n, d])?;
        if directions.d != d {
            return Err(Error::BadInput(format!(
                "the directions are for embeddings of {} values and these have {d}; draw them for {d}",
                directions.d
            )));
        }
        let slices = directions.values.len() / d;
        let series = Series::new(self, n, groups * slices);
        let mut statistics = Vec::with_capacity(groups * slices);
        for (g, group) in x.chunks_exact(n * d).enumerate() {
            let part = gradient
                .as_mut()
                .map(|all| &mut all[g * n * d..(g + 1) * n * d]);
            series.test(group, directions, &mut statistics, part);
        }
        Ok(statistics)
    }
}

/// `exp(-t²/2)`.
fn gaussian(t: f64) -> f64 {
    (-0.5 * t * t).exp()
}

/// The mean of statistics.
pub(super) fn mean(statistics: &[f64]) -> f64 {
    statistics.iter().sum::<f64>() / statistics.len() as f64
}

/// A value and what it does with the embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The mean statistic over groups and directions: the loss.
    pub mean: f64,
    /// Of `mean` with respect to the embeddings, in their layout.
    pub gradient: Vec<f32>,
}

/// Unit vectors to project on.
#[derive(Clone, Debug, PartialEq)]
pub struct Directions {
    d: usize,
    /// `[slices, d]`.
    values: Vec<f64>,
}

impl Directions {
    /// The columns of a `[d, slices]` matrix.
    ///
    /// # Errors
    /// [`Error::BadInput`] when it has another number of values, or a column's length is not 1.
    pub fn from_columns(matrix: &[f32], [d, slices]: [usize; 2]) -> Result<Self> {
        checked("a matrix of directions", matrix, &[d, slices])?;
        let values = columns(matrix, slices);
        for (k, column) in values.chunks_exact(d).enumerate() {
            let length = column.iter().map(|v| v * v).sum::<f64>().sqrt();
            // False for a NaN.
            let unit = (length - 1.0).abs() <= UNIT_TOLERANCE;
            if !unit {
                return Err(Error::BadInput(format!(
                    "column {k} of the directions has the length {length}; divide each column by its length"
                )));
            }
        }
        Ok(Self { d, values })
    }
}

/// `[d, slices]` → `[slices, d]`.
fn columns(matrix: &[f32], slices: usize) -> Vec<f64> {
    let column = |k| matrix.iter().skip(k).step_by(slices);
    (0..slices)
        .flat_map(column)
        .map(|&v| f64::from(v))
        .collect()
}

/// How many samples are computed at a time.
const LANES: usize = 4;

/// A number for each of some samples.
type Lanes = [f64; LANES];

/// A complex number for each of some samples.
#[derive(Clone, Copy)]
struct Complex {
    re: Lanes,
    im: Lanes,
}

impl Complex {
    const ZERO: Self = Self {
        re: [0.0; LANES],
        im: [0.0; LANES],
    };

    #[inline]
    fn times(self, other: Self) -> Self {
        Self {
            re: std::array::from_fn(|i| self.re[i] * other.re[i] - self.im[i] * other.im[i]),
            im: std::array::from_fn(|i| self.re[i] * other.im[i] + self.im[i] * other.re[i]),
        }
    }
}

/// The sum over knots in the form in which it is computed: over the positive knots only, as the terms of `t` and `-t` are
/// equal and the one of 0 is 0. The knots are equally spaced, so that `exp(i·t_j·y)` is a power series in
/// `exp(i·step·y)`: one sine and cosine for each sample and direction.
struct Series {
    n: usize,
    step: f64,
    /// Whether the first positive knot is half a step from 0: an even number of knots on the full interval.
    from_half: bool,
    knots: Vec<Knot>,
}

struct Knot {
    phi: f64,
    /// `w · φ`, with everything else that the error is multiplied by.
    weight: f64,
    /// The derivative of the mean statistic by a sample's `cos` or `sin` is this, times the error, times the derivative
    /// of `cos` or `sin` by `t·y`.
    slope: f64,
}

impl Series {
    fn new(variant: &SigReg, n: usize, statistics: usize) -> Self {
        let fold = match variant.quadrature {
            Quadrature::HalfIntervalDoubled => 1.0,
            Quadrature::FullIntervalTrapezoid => 2.0,
        };
        let step = variant.step();
        let share = 1.0 / statistics as f64;
        // Knots next to 0 may miss it by rounding.
        let positive = |&(t, _): &(f64, f64)| t > 0.25 * step;
        let knots = variant.knots().into_iter().zip(variant.weights());
        let knots = knots.filter(positive).map(|(t, w)| {
            let weight = fold * variant.scale(n) * w;
            Knot {
                phi: gaussian(t),
                weight,
                slope: 2.0 * weight * t * share / n as f64,
            }
        });
        Self {
            n,
            step,
            from_half: variant.quadrature == Quadrature::FullIntervalTrapezoid
                && variant.knots.is_multiple_of(2),
            knots: knots.collect(),
        }
    }

    /// One test: `x [n, d]`. Appends the statistic of each direction, and adds the gradient of the mean to `gradient`.
    fn test(
        &self,
        x: &[f32],
        directions: &Directions,
        statistics: &mut Vec<f64>,
        gradient: Option<&mut [f64]>,
    ) {
        let d = directions.d;
        let tiles = self.n.div_ceil(LANES);
        let columns = transposed(x, d, tiles);
        let mut slopes = gradient.is_some().then(|| vec![[0.0; LANES]; d * tiles]);
        let mut y = vec![[0.0; LANES]; tiles];
        let mut turns = vec![[Complex::ZERO; 2]; tiles];
        for direction in directions.values.chunks_exact(d) {
            y.fill([0.0; LANES]);
            for (&a, column) in direction.iter().zip(columns.chunks_exact(tiles)) {
                add(&mut y, a, column);
            }
            for (tile, (turn, y)) in turns.iter_mut().zip(&y).enumerate() {
                *turn = self.turn(y, self.n - tile * LANES);
            }
            let (statistic, errors) = self.statistic(&turns);
            statistics.push(statistic);
            if let Some(slopes) = &mut slopes {
                for (y, turn) in y.iter_mut().zip(&turns) {
                    *y = slope(turn, &errors);
                }
                for (&a, slopes) in direction.iter().zip(slopes.chunks_exact_mut(tiles)) {
                    add(slopes, a, &y);
                }
            }
        }
        if let (Some(slopes), Some(gradient)) = (slopes, gradient) {
            for (column, slopes) in slopes.chunks_exact(tiles).enumerate() {
                let slopes = slopes.as_flattened().iter();
                let out = gradient.iter_mut().skip(column).step_by(d);
                out.zip(slopes).for_each(|(g, s)| *g += s);
            }
        }
    }

    /// `exp(i·t·y)` at the first positive knot, and the factor from a knot to the next; 0 for the lanes beyond `count`,
    /// so that they add nothing to a sum.
    fn turn(&self, y: &Lanes, count: usize) -> [Complex; 2] {
        let mut first = Complex::ZERO;
        let angle = if self.from_half {
            0.5 * self.step
        } else {
            self.step
        };
        for (lane, y) in y.iter().enumerate().take(count) {
            (first.im[lane], first.re[lane]) = (angle * y).sin_cos();
        }
        let next = if self.from_half {
            first.times(first)
        } else {
            first
        };
        [first, next]
    }

    /// The statistic of a projection, and for each knot the factors of a sample's `cos` and `sin` in the gradient.
    fn statistic(&self, turns: &[[Complex; 2]]) -> (f64, Vec<[f64; 2]>) {
        let mut sums = vec![Complex::ZERO; self.knots.len()];
        for &[first, next] in turns {
            let mut power = first;
            for sum in &mut sums {
                for lane in 0..LANES {
                    sum.re[lane] += power.re[lane];
                    sum.im[lane] += power.im[lane];
                }
                power = power.times(next);
            }
        }
        let mut statistic = 0.0;
        let errors = self.knots.iter().zip(&sums).map(|(knot, sum)| {
            let cos = sum.re.iter().sum::<f64>() / self.n as f64 - knot.phi;
            let sin = sum.im.iter().sum::<f64>() / self.n as f64;
            statistic += knot.weight * (cos * cos + sin * sin);
            // Of cos the derivative is -sin, of sin it is cos.
            [knot.slope * sin, -knot.slope * cos]
        });
        let errors = errors.collect();
        (statistic, errors)
    }
}

/// `Σ_j errors[j] · (cos, sin)(t_j·y)`: the real part of a polynomial in the turn, by Horner's rule.
fn slope([first, next]: &[Complex; 2], errors: &[[f64; 2]]) -> Lanes {
    let mut sum = Complex::ZERO;
    for &[cos, sin] in errors.iter().rev() {
        sum = sum.times(*next);
        for lane in 0..LANES {
            sum.re[lane] += cos;
            sum.im[lane] -= sin;
        }
    }
    sum.times(*first).re
}

/// `out += factor · values`.
#[inline]
fn add(out: &mut [Lanes], factor: f64, values: &[Lanes]) {
    for (out, values) in out.iter_mut().zip(values) {
        for lane in 0..LANES {
            out[lane] += factor * values[lane];
        }
    }
}

/// `[n, d]` → `[d, tiles · LANES]`, padded with 0.
fn transposed(x: &[f32], d: usize, tiles: usize) -> Vec<Lanes> {
    let mut columns = vec![[0.0; LANES]; d * tiles];
    for (column, out) in columns.chunks_exact_mut(tiles).enumerate() {
        let values = x.iter().skip(column).step_by(d);
        let out = out.as_flattened_mut().iter_mut();
        out.zip(values).for_each(|(out, &v)| *out = f64::from(v));
    }
    columns
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::super::difference::{assert_gradient, points};
    use super::{Directions, Quadrature, SigReg, mean};
    use crate::rng::{Generator, Stream};

    fn preset(name: &str) -> SigReg {
        SigReg::preset(name).unwrap()
    }

    /// The definition, knot by knot.
    fn by_definition(variant: &SigReg, y: &[f64]) -> f64 {
        let n = y.len() as f64;
        let terms = variant.knots().into_iter().zip(variant.weights());
        let sum: f64 = terms
            .map(|(t, w)| {
                let cos = y.iter().map(|y| (t * y).cos()).sum::<f64>() / n;
                let sin = y.iter().map(|y| (t * y).sin()).sum::<f64>() / n;
                w * ((cos - (-t * t / 2.0).exp()).powi(2) + sin * sin)
            })
            .sum();
        if variant.times_n { n * sum } else { sum }
    }

    fn variants() -> Vec<SigReg> {
        let mut all: Vec<_> = SigReg::PRESETS.into_iter().map(|(_, v)| v).collect();
        for knots in [2, 3, 8] {
            for quadrature in [
                Quadrature::HalfIntervalDoubled,
                Quadrature::FullIntervalTrapezoid,
            ] {
                all.push(SigReg {
                    quadrature,
                    t_max: 2.5,
                    knots,
                    times_n: knots == 3,
                    slices: 3,
                });
            }
        }
        all
    }

    #[test]
    fn the_recurrence_computes_the_definition() {
        for variant in variants() {
            for n in [1, 2, 4, 5, 11] {
                // Far from 0 too, where the angles turn often.
                let x: Vec<f32> = points(n as u32, n).iter().map(|v| 20.0 * v).collect();
                let along = Directions::from_columns(&[1.0], [1, 1]).unwrap();
                let got = variant.statistics(&x, [1, n, 1], &along).unwrap();
                let y: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                let expected = by_definition(&variant, &y);
                assert_eq!(got.len(), 1);
                assert!(
                    (got[0] - expected).abs() < 1e-11 * expected.max(1.0),
                    "{variant:?}: {} is not {expected}",
                    got[0]
                );
            }
        }
    }

    #[test]
    fn each_direction_and_each_group_is_a_test_of_its_own() {
        let variant = preset("library");
        let (groups, n, d) = (3, 5, 3);
        let x = points(4, groups * n * d);
        let directions = SigReg {
            slices: 2,
            ..variant
        }
        .draw(d, &mut Stream::new(1, "", 0))
        .unwrap();
        let got = variant.statistics(&x, [groups, n, d], &directions).unwrap();
        let mut expected = Vec::new();
        for group in x.chunks(n * d) {
            for direction in directions.values.chunks(d) {
                let project = |row: &[f32]| {
                    let terms = row.iter().zip(direction);
                    terms.map(|(&v, a)| f64::from(v) * a).sum()
                };
                let y: Vec<f64> = group.chunks(d).map(project).collect();
                expected.push(by_definition(&variant, &y));
            }
        }
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(&expected) {
            assert!((g - e).abs() < 1e-12, "{got:?} is not {expected:?}");
        }
        let evaluated = variant.evaluate(&x, [groups, n, d], &directions).unwrap();
        assert_eq!(evaluated.mean, mean(&got));
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        for (seed, variant) in variants().into_iter().enumerate() {
            for shape in [[1, 1, 1], [1, 5, 1], [1, 1, 3], [2, 4, 2], [2, 7, 5]] {
                let variant = SigReg {
                    slices: 3,
                    ..variant
                };
                let directions = variant
                    .draw(shape[2], &mut Stream::new(seed as u64, "", 0))
                    .unwrap();
                let x = points(seed as u32, shape.iter().product());
                let evaluated = variant.evaluate(&x, shape, &directions).unwrap();
                assert_gradient(&x, &evaluated.gradient, |x| {
                    mean(&variant.statistics(x, shape, &directions).unwrap())
                });
            }
        }
    }

    #[test]
    fn a_collapsed_batch_scores_what_the_library_says() {
        let along = Directions::from_columns(&[1.0], [1, 1]).unwrap();
        // The first three from the published implementations (fixtures, `all_zero_input`). The last is the integral of
        // exp(-t²/2)·(1 - exp(-t²/2))² over the whole axis, of which the paper's knots miss less than 1e-5.
        let integral = (2.0 * PI).sqrt() * (1.0 - 2f64.sqrt() + 1.0 / 3f64.sqrt());
        for (name, n, expected, tolerance) in [
            ("library", 128, 51.46209, 1e-5),
            ("lewm", 256, 102.924179, 1e-5),
            ("eb-jepa", 128, 0.3999617, 1e-7),
            ("paper", 10, 10.0 * integral, 1e-4),
        ] {
            let variant = preset(name);
            let zeros = vec![0.0; n];
            let evaluated = variant.evaluate(&zeros, [1, n, 1], &along).unwrap();
            for got in [evaluated.mean, variant.collapsed(n)] {
                assert!(
                    (got - expected).abs() < tolerance,
                    "{name}: {got} is not {expected}"
                );
            }
            // The top of a hill: nothing pulls away from a total collapse.
            assert!(evaluated.gradient.iter().all(|&g| g == 0.0));
        }
    }

    #[test]
    fn the_floor_is_what_gaussian_samples_score() {
        // The integral of exp(-t²/2)·(1 - exp(-t²)) over the whole axis.
        let integral = (2.0 * PI).sqrt() * (1.0 - 1.0 / 3f64.sqrt());
        assert!((preset("paper").floor(64) - integral).abs() < 1e-4);
        let (groups, d) = (400, 4);
        for (name, n) in [("library", 16), ("library", 50), ("eb-jepa", 30)] {
            let variant = preset(name);
            let mut x = vec![0.0; groups * n * d];
            Stream::new(n as u64, "", 0).fill_normal(&mut x);
            let axes: Vec<f32> = (0..d * d)
                .map(|i| if i % (d + 1) == 0 { 1.0 } else { 0.0 })
                .collect();
            let axes = Directions::from_columns(&axes, [d, d]).unwrap();
            let all = variant.statistics(&x, [groups, n, d], &axes).unwrap();
            let (average, floor) = (mean(&all), variant.floor(n));
            let squares: f64 = all.iter().map(|s| (s - average).powi(2)).sum();
            let error = (squares / (all.len() * all.len()) as f64).sqrt();
            assert!(
                (average - floor).abs() < 4.0 * error,
                "{name}: {average} ± {error} is not {floor}"
            );
            // Near enough to tell it from the trapezoid rule's or a wrong factor.
            assert!(error < 0.03 * floor);
        }
        for n in [8, 128, 4096] {
            assert!((preset("library").floor(n) - 1.045).abs() < 0.01);
        }
    }

    /// A generator of known normals.
    struct Given(&'static [f32]);

    impl Generator for Given {
        fn word(&mut self) -> u32 {
            unreachable!("only normals are drawn")
        }

        fn fill_normal(&mut self, out: &mut [f32]) {
            out.copy_from_slice(self.0);
        }
    }

    #[test]
    fn drawn_directions_are_unit_vectors_in_row_major_order() {
        let variant = SigReg {
            slices: 2,
            ..preset("minimal")
        };
        let directions = variant.draw(2, &mut Given(&[3.0, 0.0, 4.0, 0.0])).unwrap();
        // Columns (3, 4) and (0, 0).
        assert_eq!(directions.values, [0.6, 0.8, 1.0, 0.0]);
        let given = Directions::from_columns(&[0.6, 1.0, 0.8, 0.0], [2, 2]).unwrap();
        for (a, b) in given.values.iter().zip(&directions.values) {
            assert!((a - b).abs() < 1e-7);
        }
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let library = preset("library");
        let with = |change: fn(&mut SigReg)| {
            let mut variant = library;
            change(&mut variant);
            variant.check().map_err(|e| e.code())
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|v| v.t_max = 0.0), Err("bad-config"));
        assert_eq!(with(|v| v.t_max = f64::NAN), Err("bad-config"));
        assert_eq!(with(|v| v.knots = 1), Err("bad-config"));
        assert_eq!(with(|v| v.knots = usize::MAX), Err("bad-config"));
        assert_eq!(with(|v| v.slices = 0), Err("bad-config"));
        assert_eq!(SigReg::preset("bcs").unwrap_err().code(), "bad-config");

        assert_eq!(
            library.draw(0, &mut Given(&[])).unwrap_err().code(),
            "bad-input"
        );
        for column in [[2.0, 0.0], [f32::NAN, 0.0], [0.0, 0.0]] {
            let refused = Directions::from_columns(&column, [2, 1]).unwrap_err();
            assert_eq!(refused.code(), "bad-input");
        }
        let directions = Directions::from_columns(&[1.0, 0.0], [2, 1]).unwrap();
        for shape in [[1, 2, 2], [1, 0, 2], [3, 1, 1], [1, 1, 3]] {
            let refused = library.evaluate(&[0.0; 3], shape, &directions);
            assert_eq!(refused.unwrap_err().code(), "bad-input");
        }
    }
}
