//! Symmetric matrices as an orthogonal change of basis and three diagonals, which serve eigenvalues and every ridge at once.

use super::dots::dot;

/// Halvings of the interval that holds an eigenvalue: then it is narrower than what rounding leaves of the matrix.
const HALVINGS: usize = 56;

/// Eigenvalues that are searched side by side, since a search alone waits for one division after the other.
const LANES: usize = 8;

/// A symmetric matrix A = Q T Qᵀ with T tridiagonal, by Householder's reflections.
pub struct Tridiagonal {
    /// Of T, `[n]`.
    diagonal: Vec<f64>,
    /// Beside the diagonal of T, `[n - 1]`.
    beside: Vec<f64>,
    /// Reflection k is 1 − factor v vᵀ, where v is what row k of `[n, n]` holds behind its diagonal.
    reflections: Vec<f64>,
    factors: Vec<f64>,
}

impl Tridiagonal {
    /// Of the matrix `[n, n]` whose part on and above the diagonal is given; the rest is not read.
    pub fn new(mut matrix: Vec<f64>, n: usize) -> Self {
        let mut beside = vec![0.0; n.saturating_sub(1)];
        let mut factors = vec![0.0; n.saturating_sub(1)];
        let mut product = vec![0.0; n];
        for k in 0..n.saturating_sub(1) {
            let (head, rest) = matrix.split_at_mut((k + 1) * n);
            let v = &mut head[k * n + k + 1..];
            // What is left to reflect into one axis; the last row is there already.
            let beyond = dot(&v[1..], &v[1..]);
            if beyond == 0.0 {
                beside[k] = v[0];
                continue;
            }
            let length = (v[0] * v[0] + beyond).sqrt();
            // Away from the axis on the near side, so that nothing cancels.
            beside[k] = -length.copysign(v[0]);
            v[0] -= beside[k];
            let factor = 2.0 / (v[0] * v[0] + beyond);
            factors[k] = factor;

            let size = v.len();
            let row_of = |i: usize| i * n + k + 1 + i..(i + 1) * n;
            let product = &mut product[..size];
            product.fill(0.0);
            for i in 0..size {
                let row = &rest[row_of(i)];
                product[i] += dot(row, &v[i..]);
                for (sum, value) in product[i + 1..].iter_mut().zip(&row[1..]) {
                    *sum += value * v[i];
                }
            }
            let half = 0.5 * factor * factor * dot(product, v);
            for (p, v) in product.iter_mut().zip(&*v) {
                *p = factor * *p - half * v;
            }
            for i in 0..size {
                let (vi, pi) = (v[i], product[i]);
                let row = rest[row_of(i)].iter_mut();
                for ((value, v), p) in row.zip(&v[i..]).zip(&product[i..]) {
                    *value -= vi * p + pi * v;
                }
            }
        }
        Self {
            diagonal: (0..n).map(|i| matrix[i * n + i]).collect(),
            beside,
            reflections: matrix,
            factors,
        }
    }

    /// Q applied to a column `[n]`, in place.
    pub fn rotate_back(&self, column: &mut [f64]) {
        for k in (0..self.factors.len()).rev() {
            self.reflect(k, column);
        }
    }

    /// Qᵀ applied to a column `[n]`, in place.
    pub fn rotate(&self, column: &mut [f64]) {
        for k in 0..self.factors.len() {
            self.reflect(k, column);
        }
    }

    fn reflect(&self, k: usize, column: &mut [f64]) {
        let n = self.diagonal.len();
        let v = &self.reflections[k * n + k + 1..(k + 1) * n];
        let column = &mut column[k + 1..];
        let share = self.factors[k] * dot(v, column);
        for (value, v) in column.iter_mut().zip(v) {
            *value -= share * v;
        }
    }

    /// Solves (T + ridge) x = column in place, for a positive definite T + ridge.
    pub fn solve(&self, ridge: f64, column: &mut [f64]) {
        let n = self.diagonal.len();
        let mut pivots = Vec::with_capacity(n);
        for i in 0..n {
            let mut pivot = self.diagonal[i] + ridge;
            if i > 0 {
                let share = self.beside[i - 1] / pivots[i - 1];
                pivot -= share * self.beside[i - 1];
                column[i] -= share * column[i - 1];
            }
            pivots.push(pivot);
        }
        for i in (0..n).rev() {
            if i + 1 < n {
                column[i] -= self.beside[i] * column[i + 1];
            }
            column[i] /= pivots[i];
        }
    }

    /// The eigenvalues in rising order, to the rounding of the largest, by bisection.
    pub fn eigenvalues(&self) -> Vec<f64> {
        let n = self.diagonal.len();
        let beside = |i: usize| self.beside.get(i).map_or(0.0, |value| value.abs());
        let reach = |i: usize| beside(i) + if i > 0 { beside(i - 1) } else { 0.0 };
        // Gershgorin's discs hold all of them.
        let lowest = (0..n)
            .map(|i| self.diagonal[i] - reach(i))
            .fold(f64::INFINITY, f64::min);
        let highest = (0..n)
            .map(|i| self.diagonal[i] + reach(i))
            .fold(f64::NEG_INFINITY, f64::max);
        let mut values = Vec::with_capacity(n);
        for first in (0..n).step_by(LANES) {
            let (mut low, mut high) = ([lowest; LANES], [highest; LANES]);
            for _ in 0..HALVINGS {
                let middle: [f64; LANES] =
                    std::array::from_fn(|lane| 0.5 * (low[lane] + high[lane]));
                let below = self.below(middle);
                for lane in 0..LANES {
                    if below[lane] > first + lane {
                        high[lane] = middle[lane];
                    } else {
                        low[lane] = middle[lane];
                    }
                }
            }
            let middle = low.iter().zip(high).map(|(low, high)| 0.5 * (low + high));
            values.extend(middle.take(n - first));
        }
        values
    }

    /// How many eigenvalues are below each bound: as many as T less the bound has negative pivots (Sylvester's inertia).
    fn below(&self, bounds: [f64; LANES]) -> [usize; LANES] {
        let mut counts = [0; LANES];
        let mut pivots = [1.0; LANES];
        for (i, &diagonal) in self.diagonal.iter().enumerate() {
            let square = if i > 0 {
                self.beside[i - 1].powi(2)
            } else {
                0.0
            };
            for lane in 0..LANES {
                let pivot = diagonal - bounds[lane] - square / pivots[lane];
                // A pivot of zero takes either sign: the next one answers for it.
                pivots[lane] = if pivot == 0.0 {
                    f64::MIN_POSITIVE
                } else {
                    pivot
                };
                counts[lane] += usize::from(pivots[lane] < 0.0);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Generator, Stream};

    fn symmetric(n: usize, seed: u64) -> Vec<f64> {
        let mut random = Stream::new(seed, "symmetric", 0);
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in i..n {
                let value = random.normal_pair()[0];
                matrix[i * n + j] = value;
                matrix[j * n + i] = value;
            }
        }
        matrix
    }

    fn times(matrix: &[f64], column: &[f64]) -> Vec<f64> {
        matrix
            .chunks_exact(column.len())
            .map(|row| dot(row, column))
            .collect()
    }

    #[test]
    fn known_eigenvalues() {
        // The chain of n masses: 2 − 2 cos(k π / (n + 1)), for k from 1 to n.
        for n in [1, 2, 3, 10, 57] {
            let mut matrix = vec![0.0; n * n];
            for i in 0..n {
                matrix[i * n + i] = 2.0;
                if i + 1 < n {
                    matrix[i * n + i + 1] = -1.0;
                }
            }
            let values = Tridiagonal::new(matrix, n).eigenvalues();
            for (k, value) in values.iter().enumerate() {
                let angle = (k + 1) as f64 * std::f64::consts::PI / (n + 1) as f64;
                assert!((value - (2.0 - 2.0 * angle.cos())).abs() < 1e-14, "{n} {k}");
            }
        }
        let ones = Tridiagonal::new(vec![1.0; 36], 6).eigenvalues();
        for (value, expected) in ones.iter().zip([0.0, 0.0, 0.0, 0.0, 0.0, 6.0]) {
            assert!((value - expected).abs() < 1e-13, "{ones:?}");
        }
        assert_eq!(Tridiagonal::new(vec![0.0; 9], 3).eigenvalues(), [0.0; 3]);
    }

    #[test]
    fn eigenvalues_keep_trace_and_squares() {
        let n = 40;
        let matrix = symmetric(n, 1);
        let trace: f64 = (0..n).map(|i| matrix[i * n + i]).sum();
        let squares = dot(&matrix, &matrix);
        let values = Tridiagonal::new(matrix, n).eigenvalues();
        assert!((values.iter().sum::<f64>() - trace).abs() < 1e-11);
        assert!((dot(&values, &values) - squares).abs() < 1e-9);
    }

    #[test]
    fn solving_in_the_other_basis_solves_the_matrix() {
        for n in [1, 2, 3, 20] {
            let matrix = symmetric(n, 2);
            // More than the largest eigenvalue in magnitude, so that the sum is positive definite.
            let ridge = 40.0;
            let right: Vec<f64> = (0..n).map(|i| i as f64 - 3.5).collect();
            let tridiagonal = Tridiagonal::new(matrix.clone(), n);
            let mut x = right.clone();
            tridiagonal.rotate(&mut x);
            tridiagonal.solve(ridge, &mut x);
            tridiagonal.rotate_back(&mut x);
            for ((product, x), right) in times(&matrix, &x).iter().zip(&x).zip(&right) {
                assert!((product + ridge * x - right).abs() < 1e-12);
            }
        }
    }
}
