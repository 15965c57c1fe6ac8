//! Masks: which tokens a model sees, and which it has to predict. Exact samplers of the published systems; index maths only.
//!
//! A sampler draws what a whole batch shares from one generator (`sizes`) and everything else from another (`places`), as
//! the published collators do, so that their masks can be replayed. It gives the same masks on every machine.

mod multiblock;
mod multiblock3d;
mod random;
mod tube;

pub use multiblock::{Multiblock, block_size};
pub use multiblock3d::{MaskType, Multiblock3d};
pub use random::Random;
use serde::{Deserialize, Serialize};
pub use tube::Tube;

use crate::config::MAX_TOKENS;
use crate::rng::{Generator, Stream, Torch};
use crate::{Error, Result};

/// Most token indices in the masks of one batch: 256 MiB where `usize` has 32 bits.
const MAX_INDICES: usize = 1 << 26;

/// Token indices, ascending: index = (t · height + row) · width + column.
///
/// All lists of one block are of one length, all lists of one context mask too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masks {
    /// What the encoder sees: one list an image. With several context masks, all images of the first come first: mask `c` of
    /// image `b` is at `c · batch + b`.
    pub context: Vec<Vec<usize>>,
    /// What is predicted: `[block][image]`. Every block is predicted from every context mask, except that a type of
    /// [`Multiblock3d`] is a context mask and a block of its own.
    pub targets: Vec<Vec<Vec<usize>>>,
}

/// A published way to choose masks, with its parameters. Absent parameters have the published values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy")]
pub enum Strategy {
    /// I-JEPA.
    #[serde(rename = "ijepa-multiblock")]
    Multiblock(Multiblock),
    /// V-JEPA 1, 2 and 2.1.
    #[serde(rename = "vjepa-multiblock3d")]
    Multiblock3d(Multiblock3d),
    /// V-JEPA's ablation.
    #[serde(rename = "tube")]
    Tube(Tube),
    /// I-JEPA's ablation.
    #[serde(rename = "random")]
    Random(Random),
}

impl Strategy {
    /// Whether there are masks for a grid of `[time, height, width]` tokens, whatever is drawn; to be asked before a long run.
    /// What can still fail is a [`Multiblock3d`] whose blocks nearly always cover everything.
    pub fn check(&self, grid: [usize; 3]) -> Result<()> {
        check_grid(grid)?;
        match self {
            Self::Multiblock(strategy) => strategy.check(grid),
            Self::Multiblock3d(strategy) => strategy.check(grid),
            Self::Tube(strategy) => strategy.check(grid),
            Self::Random(strategy) => strategy.check(grid),
        }
    }

    /// Masks for a batch of images or clips of `[time, height, width]` tokens.
    ///
    /// # Errors
    /// `BadMask` where the parameters are out of range, or where the published sampler would search for ever.
    pub fn sample(
        &self,
        grid: [usize; 3],
        batch: usize,
        sizes: &mut dyn Generator,
        places: &mut dyn Generator,
    ) -> Result<Masks> {
        check_grid(grid)?;
        check_batch(grid, batch, self.lists())?;
        match self {
            Self::Multiblock(strategy) => strategy.sample(grid, batch, sizes, places),
            Self::Multiblock3d(strategy) => strategy.sample(grid, batch, sizes, places),
            Self::Tube(strategy) => strategy.sample(grid, batch, places),
            Self::Random(strategy) => strategy.sample(grid, batch, sizes, places),
        }
    }

    /// Lists of indices for one image.
    fn lists(&self) -> usize {
        match self {
            Self::Multiblock(s) => s.num_enc_masks.saturating_add(s.num_pred_masks),
            Self::Multiblock3d(s) => s.types.len().saturating_mul(2),
            Self::Tube(_) | Self::Random(_) => 1,
        }
    }
}

/// Which generator [`sample`] draws from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// This library's: independent streams for sizes and places.
    #[default]
    Default,
    /// PyTorch's, seeded alike for sizes and places: what the published sampler gives for the first batch after
    /// `torch.manual_seed(seed)` where its own counter, too, is at `seed`.
    Torch,
}

/// Masks for one batch. The same seed gives the same masks.
///
/// # Errors
/// As [`Strategy::check`] and [`Strategy::sample`]; the former first, so that no seed succeeds by luck.
pub fn sample(
    grid: [usize; 3],
    strategy: &Strategy,
    source: Source,
    seed: u64,
    batch: usize,
) -> Result<Masks> {
    strategy.check(grid)?;
    match source {
        Source::Default => strategy.sample(
            grid,
            batch,
            &mut Stream::new(seed, "mask sizes", 0),
            &mut Stream::new(seed, "mask places", 0),
        ),
        Source::Torch => strategy.sample(grid, batch, &mut Torch::new(seed), &mut Torch::new(seed)),
    }
}

fn check_grid(grid: [usize; 3]) -> Result<()> {
    let tokens = grid.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
    match tokens {
        Some(1..=MAX_TOKENS) => Ok(()),
        _ => Err(Error::BadMask(format!(
            "a grid of {grid:?} has no tokens or more than {MAX_TOKENS}: it is [time, height, width] in patches"
        ))),
    }
}

fn check_batch([t, h, w]: [usize; 3], batch: usize, lists: usize) -> Result<()> {
    let indices = (t * h * w).saturating_mul(batch).saturating_mul(lists);
    if batch == 0 {
        return Err(Error::BadMask("batch is 0: raise it to at least 1".into()));
    }
    if indices > MAX_INDICES {
        return Err(Error::BadMask(format!(
            "the masks of {batch} images could hold {indices} indices, more than {MAX_INDICES}: lower batch or the number of masks"
        )));
    }
    Ok(())
}

/// Checks a parameter `[from, to]`.
fn check_range(name: &str, [from, to]: [f64; 2], within: [f64; 2]) -> Result<()> {
    if within[0] <= from && from <= to && to <= within[1] {
        return Ok(());
    }
    Err(Error::BadMask(format!(
        "{name} is [{from}, {to}]: it must be two numbers from {} to {}, the smaller one first",
        within[0], within[1]
    )))
}

const SCALES: [f64; 2] = [0.0, 1.0];
/// Wider than any block can be on a grid of [`MAX_TOKENS`] that is not a line.
const ASPECTS: [f64; 2] = [0.01, 100.0];

/// The point `u` of the way through a range.
fn lerp([from, to]: [f64; 2], u: f64) -> f64 {
    from + u * (to - from)
}

/// Height and width of a block of an aspect ratio (height : width), rounded as Python rounds: half to even.
fn sides(area: usize, aspect: f64) -> [usize; 2] {
    let side = |square: f64| square.sqrt().round_ties_even() as usize;
    [side(area as f64 * aspect), side(area as f64 / aspect)]
}

/// Keeps the first indices of each list: as many as the shortest has, `most` at most.
fn truncate(lists: &mut [Vec<usize>], most: usize) {
    let shortest = lists.iter().map(Vec::len).min().unwrap_or(0);
    for list in lists {
        list.truncate(shortest.min(most));
    }
}
