//! Products of f32 matrices in WebAssembly. burn-flex's own are nearly as fast there, but cannot be told what to do with the rows of a
//! product while they are in the cache, and bring a kernel for every type of number into the module.
//!
//! Both factors are packed into panels, of which a tile of the product is computed in registers (Goto and van de Geijn,
//! "Anatomy of High-Performance Matrix Multiplication", 2008). Twelve accumulators of four lanes, two registers of a row and one of
//! a column are the fifteen that V8 gives on x86-64; larger tiles are spilled, smaller ones wait for the additions. It holds as
//! long as each number is loaded right before its use, which `.cargo/config.toml` asks of LLVM.

use std::cell::RefCell;

use half::f16;

use crate::lanes::{LANES, Lanes, transposed};
use crate::rows::Epilogue;
use crate::threads::{self, Divided};

/// Rows of a tile.
const ROWS: usize = 6;
/// Columns of a tile: two registers of four lanes.
const COLUMNS: usize = 8;
/// Terms summed at once: a panel of the second factor, 12 KiB, stays in the first-level cache.
const DEPTH: usize = 384;
/// Rows packed at once, eleven tiles: with [`DEPTH`], 99 KiB, for the second-level cache.
const BLOCK: usize = 11 * ROWS;

/// Panels that are filled at once from rows that lie in memory as they are, so that whole lines of the cache are read in one go. Panels are
/// 12 KiB apart, where the first-level cache has the same place for them, and twelve such places: more throw each other out.
const GROUP: usize = 12;

/// Numbers in the form in which they are kept; those of the first factor of a product are f32.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    /// int8, and what a step is worth in each column.
    I8(&'a [i8], &'a [f32]),
}

/// A matrix in a slice: element `[r, c]` is at `offset + r · strides[0] + c · strides[1]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Where its elements are.
    pub values: Values<'a>,
    /// Of the first element.
    pub offset: usize,
    /// From an element to that of the next row, and to that of the next column.
    pub strides: [usize; 2],
}

thread_local! {
    /// Memory for packed panels, kept for the next product.
    static PANELS: RefCell<Vec<f32>> = RefCell::default();
}

/// Multiplications below which sharing a product takes longer than it saves.
const SHARED: usize = 1 << 18;

/// `out [m, n] = a [m, k] · b [k, n]`, `out` row-major, whose length says how many rows there are. The epilogue is applied to rows
/// while they are in the cache.
#[inline(never)]
pub fn product(
    out: &mut [f32],
    [k, n]: [usize; 2],
    a: Matrix,
    b: Matrix,
    epilogue: Option<&Epilogue>,
) {
    let rows = (out.len() / n).max(1);
    let threads = match rows.saturating_mul(k).saturating_mul(n) {
        ..SHARED => 1,
        _ => threads::count(),
    };
    // As many blocks for each thread.
    let blocks = rows.div_ceil(BLOCK * threads) * threads;
    let block = rows.div_ceil(blocks).next_multiple_of(ROWS);
    let terms = DEPTH.min(k);
    let product = Product {
        k,
        n,
        a,
        b,
        epilogue,
    };
    PANELS.with_borrow_mut(|panels| {
        let (left, right) = panels_of(
            panels,
            threads * block * terms,
            n.next_multiple_of(COLUMNS) * terms,
        );
        product.compute(out, block, threads, left, right);
    });
}

/// Products of matrices one behind the other, `out [count, m, n] = a [count, m, k] · b [count, k, n]`, of which `factors` are told by
/// their number.
#[inline(never)]
pub fn products<'a>(
    out: &mut [f32],
    [m, k, n]: [usize; 3],
    factors: &(dyn Fn(usize) -> [Matrix<'a>; 2] + Sync),
) {
    let threads = threads::count();
    if out.len() < threads * m * n || threads == 1 {
        for (i, out) in out.chunks_exact_mut(m * n).enumerate() {
            let [a, b] = factors(i);
            product(out, [k, n], a, b, None);
        }
        return;
    }
    PANELS.with_borrow_mut(|panels| {
        let terms = DEPTH.min(k);
        let (of_left, of_right) = (BLOCK * terms, n.next_multiple_of(COLUMNS) * terms);
        let (left, right) = panels_of(panels, threads * of_left, threads * of_right);
        let (left, right) = (Divided::new(left), Divided::new(right));
        threads::chunks(threads, out, m * n, &|i, out, thread| {
            let [a, b] = factors(i);
            let product = Product {
                k,
                n,
                a,
                b,
                epilogue: None,
            };
            let of_thread = |size| thread * size..(thread + 1) * size;
            // SAFETY: each thread has panels of its own.
            let (left, right) = unsafe {
                (
                    left.part(of_thread(of_left)),
                    right.part(of_thread(of_right)),
                )
            };
            product.compute(out, BLOCK, 1, left, right);
        });
    });
}

/// Memory for the panels of both factors.
fn panels_of(panels: &mut Vec<f32>, left: usize, right: usize) -> (&mut [f32], &mut [f32]) {
    if panels.len() < left + right {
        panels.resize(left + right, 0.0);
    }
    panels[..left + right].split_at_mut(left)
}

struct Product<'a> {
    k: usize,
    n: usize,
    a: Matrix<'a>,
    b: Matrix<'a>,
    epilogue: Option<&'a Epilogue<'a>>,
}

impl Product<'_> {
    /// By blocks of `block` rows, with `left` memory for one of each thread.
    fn compute(
        &self,
        out: &mut [f32],
        block: usize,
        threads: usize,
        left: &mut [f32],
        right: &mut [f32],
    ) {
        let &Self {
            k,
            n,
            a,
            b,
            epilogue,
        } = self;
        let of_thread = left.len() / threads;
        let left = Divided::new(left);
        for depth in (0..k).step_by(DEPTH) {
            let terms = DEPTH.min(k - depth);
            let panels = n.div_ceil(COLUMNS);
            let right = &mut right[..panels * COLUMNS * terms];
            let of_part = panels.div_ceil(threads);
            threads::chunks(
                threads,
                right,
                of_part * COLUMNS * terms,
                &|part, right, _| {
                    let first = part * of_part * COLUMNS;
                    let columns = (n - first).min(of_part * COLUMNS);
                    pack::<COLUMNS>(
                        right,
                        b,
                        [b.strides[1], b.strides[0]],
                        [first, depth],
                        [columns, terms],
                    );
                },
            );
            let right = &*right;
            threads::chunks(threads, out, block * n, &|i, rows, thread| {
                let first = i * block;
                let count = rows.len() / n;
                let start = thread * of_thread;
                // SAFETY: each thread has panels of its own.
                let left =
                    unsafe { left.part(start..start + count.next_multiple_of(ROWS) * terms) };
                pack::<ROWS>(left, a, a.strides, [first, depth], [count, terms]);
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
            });
        }
    }
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
fn pack<const WIDTH: usize>(
    to: &mut [f32],
    x: Matrix,
    [row, term]: [usize; 2],
    [first, depth]: [usize; 2],
    [rows, terms]: [usize; 2],
) {
    let mut whole = 0;
    if let Values::F32(values) = x.values
        && row == 1
    {
        whole = rows / WIDTH;
        let start = x.offset + first + depth * term;
        let groups = to[..whole * WIDTH * terms].chunks_mut(GROUP * WIDTH * terms);
        for (i, group) in groups.enumerate() {
            let start = start + i * GROUP * WIDTH;
            let length = group.len() / terms;
            for t in 0..terms {
                let numbers = values[start + t * term..][..length].chunks_exact(WIDTH);
                for (panel, numbers) in group.chunks_exact_mut(WIDTH * terms).zip(numbers) {
                    panel[t * WIDTH..][..WIDTH].copy_from_slice(numbers);
                }
            }
        }
    }
    let panels = to.chunks_exact_mut(WIDTH * terms).enumerate();
    for (i, panel) in panels.skip(whole) {
        let of_panel = first + i * WIDTH..first + rows.min((i + 1) * WIDTH);
        let count = of_panel.len();
        let start = x.offset + of_panel.start * row + depth * term;
        let at = |r: usize, t: usize| start + r * row + t * term;
        match x.values {
            Values::F32(values) if count == WIDTH && term == 1 => {
                interleave::<WIDTH>(panel, |r| &values[at(r, 0)..][..terms]);
            }
            Values::F32(values) => fill::<WIDTH>(panel, count, |r, t| values[at(r, t)]),
            // Else they would be compiled for both factors.
            _ if WIDTH == ROWS => unreachable!("the first factor is f32"),
            Values::F16(values) => fill::<WIDTH>(panel, count, |r, t| values[at(r, t)].to_f32()),
            Values::I8(values, steps) => {
                let steps = &steps[of_panel];
                fill::<WIDTH>(panel, count, |r, t| f32::from(values[at(r, t)]) * steps[r]);
            }
        }
    }
}

/// A panel number by number, with zeros from the row `count` on.
#[inline(always)]
fn fill<const WIDTH: usize>(panel: &mut [f32], count: usize, at: impl Fn(usize, usize) -> f32) {
    for (t, place) in panel.chunks_exact_mut(WIDTH).enumerate() {
        for (r, v) in place.iter_mut().enumerate() {
            *v = if r < count { at(r, t) } else { 0.0 };
        }
    }
}

/// A panel of whole rows: four terms of four rows at a time are read and written as registers.
#[inline(always)]
fn interleave<'a, const WIDTH: usize>(panel: &mut [f32], row: impl Fn(usize) -> &'a [f32]) {
    let rows: [_; WIDTH] = std::array::from_fn(|r| row(r).as_chunks::<LANES>());
    let (squares, rest) = panel.split_at_mut(rows[0].0.len() * LANES * WIDTH);
    for (t, square) in squares.chunks_exact_mut(LANES * WIDTH).enumerate() {
        let of_row = |r: usize| &rows[r].0[t];
        for r in (0..WIDTH - WIDTH % LANES).step_by(LANES) {
            let columns = transposed(std::array::from_fn(|i| Lanes::load(of_row(r + i))));
            for (place, column) in square.chunks_exact_mut(WIDTH).zip(columns) {
                place[r..r + LANES].copy_from_slice(&column.values());
            }
        }
        for r in WIDTH - WIDTH % LANES..WIDTH {
            for (place, &v) in square.chunks_exact_mut(WIDTH).zip(of_row(r)) {
                place[r] = v;
            }
        }
    }
    for (t, place) in rest.chunks_exact_mut(WIDTH).enumerate() {
        for (v, (_, row)) in place.iter_mut().zip(&rows) {
            *v = row[t];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::tests::with_three_threads;

    /// Against the definition in f64, for every layout of the factors.
    fn check([m, k, n]: [usize; 3]) {
        let numbers = |length: usize, step: f32| -> Vec<f32> {
            (0..length).map(|i| (i as f32 * step).sin()).collect()
        };
        let (a, b) = (numbers(3 + 2 * m * k, 0.37), numbers(5 + 2 * k * n, 0.73));
        for layouts in 0..9 {
            let strides = |layout, rows, columns| match layout {
                0 => [columns, 1],
                1 => [1, rows],
                _ => [2 * columns, 2],
            };
            let (of_a, of_b) = (strides(layouts % 3, m, k), strides(layouts / 3, k, n));
            let matrix = |data, offset, strides| Matrix {
                values: Values::F32(data),
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
            [6, 4, 8],
            [7, 3, 7],
            [65, 17, 33],
            [66, 384, 8],
            [67, 385, 12],
            [133, 800, 3],
        ] {
            check(sizes);
        }
    }

    #[test]
    fn products_of_several_threads_are_the_same_to_the_bit() {
        for [count, m, k, n] in [
            [1, 197, 385, 200],
            [1, 5, 900, 70],
            [1, 1, 3000, 97],
            [1, 3000, 90, 1],
            [2, 50, 70, 90],
            [7, 65, 24, 65],
            [12, 197, 64, 197],
        ] {
            let a: Vec<f32> = (0..count * m * k)
                .map(|i| (i as f32 * 0.37).sin())
                .collect();
            let b: Vec<f32> = (0..count * k * n)
                .map(|i| (i as f32 * 0.73).sin())
                .collect();
            let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let epilogue = Epilogue {
                bias: &bias,
                gelu: true,
                residual: Some(&a[..n]),
            };
            let matrix = |data, offset, strides| Matrix {
                values: Values::F32(data),
                offset,
                strides,
            };
            let factors = |i| [matrix(&a, i * m * k, [k, 1]), matrix(&b, i * k * n, [n, 1])];
            let compute = || {
                let mut out = vec![f32::NAN; count * m * n];
                match count {
                    1 => {
                        let [a, b] = factors(0);
                        product(&mut out, [k, n], a, b, Some(&epilogue));
                    }
                    _ => products(&mut out, [m, k, n], &factors),
                }
                out
            };
            let alone = compute();
            with_three_threads(|| assert_eq!(compute(), alone, "{count}×{m}×{k}×{n}"));
        }
    }

    #[test]
    fn numbers_are_multiplied_as_what_they_stand_for() {
        let [m, k, n] = [7, 390, 13];
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
        let steps: Vec<f32> = (0..n).map(|c| 0.01 + c as f32 / 100.0).collect();
        let whole: Vec<i8> = (0..k * n).map(|i| (i * 37 % 255) as u8 as i8).collect();
        let halves: Vec<f16> = (0..k * n)
            .map(|i| f16::from_f32((i as f32).cos()))
            .collect();
        let times = |values| {
            let mut out = vec![0.0; m * n];
            let matrix = |values, columns| Matrix {
                values,
                offset: 0,
                strides: [columns, 1],
            };
            let a = matrix(Values::F32(&a), k);
            product(&mut out, [k, n], a, matrix(values, n), None);
            out
        };
        let of_whole: Vec<f32> = whole
            .iter()
            .enumerate()
            .map(|(i, &v)| f32::from(v) * steps[i % n])
            .collect();
        let of_halves: Vec<f32> = halves.iter().map(|v| v.to_f32()).collect();
        assert_eq!(
            times(Values::I8(&whole, &steps)),
            times(Values::F32(&of_whole))
        );
        assert_eq!(times(Values::F16(&halves)), times(Values::F32(&of_halves)));
    }
}
