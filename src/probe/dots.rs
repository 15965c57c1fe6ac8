//! Products of rows: where nearest neighbours and Gram matrices spend their time.

use std::ops::{AddAssign, Mul};

/// How many values of a row are multiplied before the next rows get their turn, so that those of a block stay in the
/// first-level cache: 512 doubles are 4 KiB.
const BLOCK: usize = 512;

/// The dot products of `R` rows with another one. `LANES` sums run side by side, which the compiler turns into SIMD and
/// which rounds less than one long sum.
#[inline(always)]
pub fn dots<T, const R: usize, const LANES: usize>(rows: [&[T]; R], other: &[T]) -> [T; R]
where
    T: Copy + Default + AddAssign + Mul<Output = T>,
{
    let length = other.len();
    let rows = rows.map(|row| &row[..length]);
    let mut sums = [[T::default(); LANES]; R];
    let whole = length - length % LANES;
    for at in (0..whole).step_by(LANES) {
        let other = &other[at..at + LANES];
        for (sums, row) in sums.iter_mut().zip(rows) {
            let row = &row[at..at + LANES];
            for lane in 0..LANES {
                sums[lane] += row[lane] * other[lane];
            }
        }
    }
    let mut totals = [T::default(); R];
    for ((total, sums), row) in totals.iter_mut().zip(sums).zip(rows) {
        sums.iter().for_each(|&sum| *total += sum);
        for (&a, &b) in row[whole..].iter().zip(&other[whole..]) {
            *total += a * b;
        }
    }
    totals
}

/// The dot product of two rows of doubles.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    dots::<f64, 1, 8>([a], b)[0]
}

/// The products of all pairs of rows of `[n, length]`: `[n, n]`, of which the part on and above the diagonal is filled.
pub fn gram(rows: &[f64], n: usize) -> Vec<f64> {
    let length = rows.len() / n;
    let mut products = vec![0.0; n * n];
    for start in (0..length).step_by(BLOCK) {
        let end = length.min(start + BLOCK);
        let row = |i: usize| &rows[i * length + start..i * length + end];
        for first in (0..n).step_by(4) {
            let quad = [0, 1, 2, 3].map(|i| row((first + i).min(n - 1)));
            // The few products below the diagonal that come along are not read.
            for j in first..n {
                let sums = dots::<f64, 4, 4>(quad, row(j));
                for (i, sum) in (first..n).zip(sums) {
                    products[i * n + j] += sum;
                }
            }
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition_at_any_size() {
        for (n, length) in [(1, 1), (3, 5), (4, 8), (6, 17), (9, 1100)] {
            let value = |i: usize, k: usize| ((i * 7 + k * 3) % 11) as f64 - 5.0;
            let rows: Vec<f64> = (0..n)
                .flat_map(|i| (0..length).map(move |k| value(i, k)))
                .collect();
            let products = gram(&rows, n);
            for i in 0..n {
                for j in i..n {
                    let expected: f64 = (0..length).map(|k| value(i, k) * value(j, k)).sum();
                    assert_eq!(products[i * n + j], expected, "{n} × {length}: {i} {j}");
                }
            }
            assert_eq!(dot(&rows[..length], &rows[..length]), products[0]);
        }
    }
}
