//! Products of f32 matrices in WebAssembly. burn-flex's own are nearly as fast there, but cannot be told what to do with the rows of a
//! product while they are in the cache, and bring a kernel for every type of number into the module.
//!
//! Both factors are packed into panels, of which a tile of the product is computed in registers (Goto and van de Geijn,
//! "Anatomy of High-Performance Matrix Multiplication", 2008). Eight accumulators of four lanes and what feeds them fit the
//! sixteen registers of 128-bit SIMD; larger tiles were spilled, smaller ones wait for the additions.

use std::cell::RefCell;

use crate::lanes::Lanes;
use crate::rows::Epilogue;

/// Rows of a tile.
const ROWS: usize = 4;
/// Columns of a tile: two registers of four lanes.
const COLUMNS: usize = 8;
/// Terms summed at once: a panel of the second factor, 12 KiB, stays in the first-level cache.
const DEPTH: usize = 384;
/// Rows packed at once: with [`DEPTH`], 96 KiB, for the second-level cache.
const BLOCK: usize = 64;

/// A matrix in a slice: element `[r, c]` is at `offset + r · strides[0] + c · strides[1]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Where its elements are.
    pub data: &'a [f32],
    /// Of the first element.
    pub offset: usize,
    /// From an element to that of the next row, and to that of the next column.
    pub strides: [usize; 2],
}

/// Packed panels, kept for the next product.
#[derive(Default)]
struct Panels {
    left: Vec<f32>,
    right: Vec<f32>,
}

thread_local! {
    static PANELS: RefCell<Panels> = RefCell::default();
}

/// `out [m, n] = a [m, k] · b [k, n]`, `out` row-major, whose length says how many rows there are. The epilogue is applied to rows
/// while they are in the cache.
pub fn product(
    out: &mut [f32],
    [k, n]: [usize; 2],
    a: Matrix,
    b: Matrix,
    epilogue: Option<&Epilogue>,
) {
    PANELS.with_borrow_mut(|panels| {
        for depth in (0..k).step_by(DEPTH) {
            let terms = DEPTH.min(k - depth);
            let rows_of_b = [b.strides[1], b.strides[0]];
            let right = pack::<COLUMNS>(&mut panels.right, b, rows_of_b, [0, depth], [n, terms]);
            for (block, rows) in out.chunks_mut(BLOCK * n).enumerate() {
                let first = block * BLOCK;
                let count = rows.len() / n;
                let left = pack::<ROWS>(
                    &mut panels.left,
                    a,
                    a.strides,
                    [first, depth],
                    [count, terms],
                );
                for (j, right) in right.chunks_exact(terms * COLUMNS).enumerate() {
                    let columns = j * COLUMNS..n.min((j + 1) * COLUMNS);
                    for (left, rows) in left
                        .chunks_exact(terms * ROWS)
                        .zip(rows.chunks_mut(ROWS * n))
                    {
                        let tile = tile(left, right);
                        for (row, sums) in rows.chunks_exact_mut(n).zip(&tile) {
                            store(&mut row[columns.clone()], sums, depth > 0);
                        }
                    }
                }
                if let Some(epilogue) = epilogue
                    && depth + terms == k
                {
                    epilogue.apply(first, rows);
                }
            }
        }
    });
}

/// `ROWS` rows of the left panel times `COLUMNS` columns of the right one.
#[inline(never)]
#[cfg_attr(
    all(target_family = "wasm", feature = "relaxed-simd"),
    target_feature(enable = "relaxed-simd")
)]
fn tile(left: &[f32], right: &[f32]) -> [[Lanes; 2]; ROWS] {
    let mut sums = [[Lanes::splat(0.0); 2]; ROWS];
    let (columns, _) = left.as_chunks::<ROWS>();
    let (rows, _) = right.as_chunks::<COLUMNS>();
    for (column, row) in columns.iter().zip(rows) {
        let (row, _) = row.as_chunks();
        let row = [Lanes::load(&row[0]), Lanes::load(&row[1])];
        for (sums, &value) in sums.iter_mut().zip(column) {
            let value = Lanes::splat(value);
            sums[0] = value.fused_times_plus(row[0], sums[0]);
            sums[1] = value.fused_times_plus(row[1], sums[1]);
        }
    }
    sums
}

#[inline(always)]
fn store(row: &mut [f32], sums: &[Lanes; 2], add: bool) {
    let [low, high] = sums.map(Lanes::values);
    let write = |row: &mut [f32], values: &[f32]| match add {
        true => row.iter_mut().zip(values).for_each(|(v, s)| *v += s),
        false => row.copy_from_slice(values),
    };
    if row.len() == COLUMNS {
        write(&mut row[..4], &low);
        write(&mut row[4..], &high);
    } else {
        let values: [f32; COLUMNS] = std::array::from_fn(|i| match i < 4 {
            true => low[i],
            false => high[i - 4],
        });
        let columns = row.len();
        write(row, &values[..columns]);
    }
}

/// Panels of `WIDTH` rows of `x`, of which `strides` says how far apart rows and terms are: `[panels, terms, WIDTH]`, with zeros
/// for the rows that the last one lacks.
fn pack<'a, const WIDTH: usize>(
    to: &'a mut Vec<f32>,
    x: Matrix,
    [row, term]: [usize; 2],
    [first, depth]: [usize; 2],
    [rows, terms]: [usize; 2],
) -> &'a [f32] {
    let length = rows.div_ceil(WIDTH) * WIDTH * terms;
    if to.len() < length {
        to.resize(length, 0.0);
    }
    let panels = to[..length].chunks_exact_mut(WIDTH * terms);
    for (i, panel) in panels.enumerate() {
        let count = WIDTH.min(rows - i * WIDTH);
        let start = x.offset + (first + i * WIDTH) * row + depth * term;
        let places = panel.chunks_exact_mut(WIDTH).enumerate();
        if count < WIDTH {
            for (t, place) in places {
                let at = |r: usize| x.data[start + r * row + t * term];
                place
                    .iter_mut()
                    .enumerate()
                    .for_each(|(r, v)| *v = if r < count { at(r) } else { 0.0 });
            }
        } else if row == 1 {
            for (t, place) in places {
                place.copy_from_slice(&x.data[start + t * term..][..WIDTH]);
            }
        } else {
            let rows: [&[f32]; WIDTH] =
                std::array::from_fn(|r| &x.data[start + r * row..][..(terms - 1) * term + 1]);
            for (t, place) in places {
                for (v, row) in place.iter_mut().zip(&rows) {
                    *v = row[t * term];
                }
            }
        }
    }
    &to[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition in f64, for every layout of the factors.
    fn check([m, k, n]: [usize; 3]) {
        let numbers = |length: usize, step: f32| -> Vec<f32> {
            (0..length).map(|i| (i as f32 * step).sin()).collect()
        };
        let (a, b) = (numbers(3 + m * k, 0.37), numbers(5 + k * n, 0.73));
        for (transposed_a, transposed_b) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let strides = |transposed, rows, columns| match transposed {
                true => [1, rows],
                false => [columns, 1],
            };
            let (of_a, of_b) = (strides(transposed_a, m, k), strides(transposed_b, k, n));
            let matrix = |data, offset, strides| Matrix {
                data,
                offset,
                strides,
            };
            let mut out = vec![f32::NAN; m * n];
            // Shows that each row is finished once, after all of its terms.
            let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let epilogue = Epilogue {
                bias: &bias,
                gelu: false,
                residual: None,
            };
            let factors = (matrix(&a, 3, of_a), matrix(&b, 5, of_b));
            product(&mut out, [k, n], factors.0, factors.1, Some(&epilogue));
            for (i, &value) in out.iter().enumerate() {
                let (row, column) = (i / n, i % n);
                let terms = (0..k).map(|t| {
                    f64::from(a[3 + row * of_a[0] + t * of_a[1]])
                        * f64::from(b[5 + t * of_b[0] + column * of_b[1]])
                });
                let bias = f64::from(bias[column]);
                let (exact, size) =
                    terms.fold((bias, bias), |(sum, size), v| (sum + v, size + v.abs()));
                // What rounding each product and each sum can add up to.
                let allowed = (k + 2) as f64 * f64::from(f32::EPSILON) / 2.0 * size;
                assert!(
                    (f64::from(value) - exact).abs() <= allowed,
                    "{m}×{k}×{n}, row {row}, column {column}: {value} for {exact}"
                );
            }
        }
    }

    #[test]
    fn products_are_their_definition() {
        for sizes in [
            [1, 1, 1],
            [1, 5, 9],
            [4, 4, 8],
            [5, 3, 7],
            [63, 17, 33],
            [64, 384, 8],
            [65, 385, 12],
            [130, 800, 3],
        ] {
            check(sizes);
        }
    }
}
