//! I-JEPA's masks: a few target blocks, and one large context block without what the targets cover.
//!
//! What the published sampler does, kept because models were trained with it: one uniform drives both the scale and the
//! aspect ratio of a block; a block is placed with an exclusive upper end, so that the last row and the last column are never
//! in any mask, and on 14×14 the context block is 13×13 at the corner always; small batches see more context, because
//! every list is cut to the shortest of its batch.

use serde::{Deserialize, Serialize};

use super::{ASPECTS, Masks, SCALES, check_range, lerp, sides, truncate};
use crate::rng::Generator;
use crate::{Error, Result};

/// Published value of `min_keep`.
const MIN_KEEP: usize = 10;
/// Places that are tried for a context block before it respects one target block fewer; published.
const PATIENCE: usize = 20;
/// Keeps the search for a context short; published are four at most.
const MAX_MASKS: usize = 64;

/// Parameters of I-JEPA's sampler, with the values of every released configuration as defaults.
///
/// A clip has the masks of one picture, repeated in every time step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Multiblock {
    /// Area of a context block as a part of the grid, from and to: 0.85 to 1.
    pub enc_mask_scale: [f64; 2],
    /// Area of a target block as a part of the grid, from and to: 0.15 to 0.2.
    pub pred_mask_scale: [f64; 2],
    /// Height of a target block over its width, from and to: 0.75 to 1.5. Context blocks are square.
    pub aspect_ratio: [f64; 2],
    /// Context masks an image: 1.
    pub num_enc_masks: usize,
    /// Target blocks an image: 4.
    pub num_pred_masks: usize,
    /// Every mask keeps more tokens than this, before it is cut to the shortest of its batch. 10; where it is absent and a
    /// block of the grid can be so small that the published sampler would search for ever, one less than that block.
    pub min_keep: Option<usize>,
    /// Whether a context block may hold targets: false. Even so it does where no place for it was found without them,
    /// which happens on small grids.
    pub allow_overlap: bool,
}

impl Default for Multiblock {
    fn default() -> Self {
        Self {
            enc_mask_scale: [0.85, 1.0],
            pred_mask_scale: [0.15, 0.2],
            aspect_ratio: [0.75, 1.5],
            num_enc_masks: 1,
            num_pred_masks: 4,
            min_keep: None,
            allow_overlap: false,
        }
    }
}

/// Context blocks are square.
const SQUARE: [f64; 2] = [1.0, 1.0];

/// `[height, width]` of a block on a grid of `[height, width]` tokens for a uniform `u`; at most one less than the grid's.
pub fn block_size(grid: [usize; 2], scale: [f64; 2], aspect: [f64; 2], u: f64) -> [usize; 2] {
    let area = ((grid[0] * grid[1]) as f64 * lerp(scale, u)) as usize;
    let [h, w] = sides(area, lerp(aspect, u));
    [
        h.min(grid[0].saturating_sub(1)),
        w.min(grid[1].saturating_sub(1)),
    ]
}

impl Multiblock {
    pub(super) fn check(&self, [_, height, width]: [usize; 3]) -> Result<()> {
        self.check_parameters()?;
        let grid = [height, width];
        let min_keep = self.min_keep_on(grid);
        self.check_block(grid, "pred", self.smallest_target(grid), min_keep)?;
        self.check_block(grid, "enc", self.smallest_context(grid), min_keep)
    }

    fn check_parameters(&self) -> Result<()> {
        check_range("encMaskScale", self.enc_mask_scale, SCALES)?;
        check_range("predMaskScale", self.pred_mask_scale, SCALES)?;
        check_range("aspectRatio", self.aspect_ratio, ASPECTS)?;
        let counts = [self.num_enc_masks, self.num_pred_masks];
        if counts.iter().any(|count| !(1..=MAX_MASKS).contains(count)) {
            return Err(Error::BadMask(format!(
                "numEncMasks and numPredMasks must be from 1 to {MAX_MASKS}"
            )));
        }
        Ok(())
    }

    /// A block that cannot have enough tokens anywhere, which the published sampler would place again and again.
    fn check_block(
        &self,
        grid: [usize; 2],
        kind: &str,
        block: [usize; 2],
        min_keep: usize,
    ) -> Result<()> {
        let tokens = block[0] * block[1];
        if tokens > min_keep {
            return Ok(());
        }
        let [h, w] = grid;
        let advice = match tokens {
            0 => format!("raise {kind}MaskScale, or the grid to at least 2×2"),
            _ => format!("lower minKeep below {tokens}, or raise {kind}MaskScale"),
        };
        Err(Error::BadMask(format!(
            "a block of {}×{} of {h}×{w} tokens (height × width) never keeps more than minKeep, {min_keep}: {advice}",
            block[0], block[1]
        )))
    }

    fn min_keep_on(&self, grid: [usize; 2]) -> usize {
        self.min_keep.unwrap_or_else(|| {
            let smallest = [self.smallest_target(grid), self.smallest_context(grid)];
            smallest
                .map(|[h, w]| (h * w).saturating_sub(1))
                .into_iter()
                .fold(MIN_KEEP, usize::min)
        })
    }

    fn smallest_target(&self, grid: [usize; 2]) -> [usize; 2] {
        smallest(grid, self.pred_mask_scale, self.aspect_ratio)
    }

    fn smallest_context(&self, grid: [usize; 2]) -> [usize; 2] {
        smallest(grid, self.enc_mask_scale, SQUARE)
    }

    pub(super) fn sample(
        &self,
        [time, height, width]: [usize; 3],
        batch: usize,
        sizes: &mut dyn Generator,
        places: &mut dyn Generator,
    ) -> Result<Masks> {
        self.check_parameters()?;
        let grid = [height, width];
        let target = block_size(
            grid,
            self.pred_mask_scale,
            self.aspect_ratio,
            sizes.uniform().into(),
        );
        let context = block_size(grid, self.enc_mask_scale, SQUARE, sizes.uniform().into());
        let min_keep = self.min_keep_on(grid);
        self.check_block(grid, "pred", target, min_keep)?;
        self.check_block(grid, "enc", context, min_keep)?;

        let mut contexts = vec![Vec::new(); self.num_enc_masks * batch];
        let mut targets = vec![Vec::with_capacity(batch); self.num_pred_masks];
        for image in 0..batch {
            let blocks: Vec<_> = (0..self.num_pred_masks)
                .map(|_| Block::placed(target, grid, places))
                .collect();
            for (target, block) in targets.iter_mut().zip(&blocks) {
                target.push(block.tokens_outside(&[], width));
            }
            let avoided: &[Block] = if self.allow_overlap { &[] } else { &blocks };
            for c in 0..self.num_enc_masks {
                contexts[c * batch + image] =
                    context_mask(context, grid, avoided, min_keep, places);
            }
        }
        // Targets are of one length as they are: whole blocks of one size.
        truncate(&mut contexts, usize::MAX);
        for list in contexts.iter_mut().chain(targets.iter_mut().flatten()) {
            let picture = std::mem::take(list);
            *list = (0..time)
                .flat_map(|t| picture.iter().map(move |i| t * height * width + i))
                .collect();
        }
        Ok(Masks {
            context: contexts,
            targets,
        })
    }
}

/// Draws places until more than `min_keep` tokens of the block are outside of `avoided`, of which the last is given up after
/// every [`PATIENCE`] failures. The whole block has enough, so this ends.
fn context_mask(
    size: [usize; 2],
    grid: [usize; 2],
    mut avoided: &[Block],
    min_keep: usize,
    places: &mut dyn Generator,
) -> Vec<usize> {
    loop {
        for _ in 0..PATIENCE {
            let mask = Block::placed(size, grid, places).tokens_outside(avoided, grid[1]);
            if mask.len() > min_keep {
                return mask;
            }
        }
        avoided = &avoided[..avoided.len().saturating_sub(1)];
    }
}

struct Block {
    top: usize,
    left: usize,
    size: [usize; 2],
}

impl Block {
    fn placed(size: [usize; 2], grid: [usize; 2], places: &mut dyn Generator) -> Self {
        Self {
            top: places.below(grid[0] - size[0]),
            left: places.below(grid[1] - size[1]),
            size,
        }
    }

    fn contains(&self, row: usize, column: usize) -> bool {
        (self.top..self.top + self.size[0]).contains(&row)
            && (self.left..self.left + self.size[1]).contains(&column)
    }

    fn tokens_outside(&self, others: &[Block], width: usize) -> Vec<usize> {
        (self.top..self.top + self.size[0])
            .flat_map(|row| (self.left..self.left + self.size[1]).map(move |column| (row, column)))
            .filter(|&(row, column)| !others.iter().any(|other| other.contains(row, column)))
            .map(|(row, column)| row * width + column)
            .collect()
    }
}

/// The block of the fewest tokens that any uniform gives: the sides only change at certain uniforms, so one between each two
/// of these is enough.
fn smallest(grid: [usize; 2], scale: [f64; 2], aspect: [f64; 2]) -> [usize; 2] {
    let tokens = (grid[0] * grid[1]) as f64;
    let area = |u: f64| (tokens * lerp(scale, u)) as usize;
    let mut steps = vec![0.0, 1.0];
    steps.extend(
        (area(0.0) + 1..=area(1.0))
            .map(|area| (area as f64 / tokens - scale[0]) / (scale[1] - scale[0])),
    );
    steps.sort_by(f64::total_cmp);
    let mut side_steps = Vec::new();
    for between in steps.windows(2) {
        let area = area(between[0].midpoint(between[1]));
        let ends = [between[0], between[1]].map(|u| sides(area, lerp(aspect, u)));
        let half = |k: usize| (k as f64 + 0.5).powi(2);
        let heights = (ends[0][0]..ends[1][0]).map(|k| half(k) / area as f64);
        let widths = (ends[1][1]..ends[0][1]).map(|k| area as f64 / half(k));
        side_steps.extend(
            heights
                .chain(widths)
                .map(|ratio| (ratio - aspect[0]) / (aspect[1] - aspect[0])),
        );
    }
    steps.extend(side_steps);
    steps.sort_by(f64::total_cmp);
    let between = steps.windows(2).map(|pair| pair[0].midpoint(pair[1]));
    std::iter::once(0.0)
        .chain(between)
        .map(|u| block_size(grid, scale, aspect, u))
        .fold(grid, |least, block| {
            if block[0] * block[1] < least[0] * least[1] {
                block
            } else {
                least
            }
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_smallest_blocks_of_the_published_parameters() {
        // By a scan over 2²⁰ uniforms in a separate program, in Python's arithmetic.
        for (side, least) in [(4, 1), (6, 4), (8, 9), (14, 30), (16, 35), (28, 108)] {
            let [h, w] = Multiblock::default().smallest_target([side, side]);
            assert_eq!(h * w, least, "{side}×{side}");
        }
    }

    proptest! {
        #[test]
        fn no_uniform_gives_less_than_the_smallest_block(
            grid in [1usize..60, 1usize..60],
            mut scale in [0.0..1.0, 0.0..1.0],
            mut aspect in [0.1..10.0, 0.1..10.0],
            uniforms in prop::collection::vec(0.0..1.0, 1000),
        ) {
            scale.sort_by(f64::total_cmp);
            aspect.sort_by(f64::total_cmp);
            let [h, w] = smallest(grid, scale, aspect);
            for u in uniforms {
                let [block_h, block_w] = block_size(grid, scale, aspect, u);
                prop_assert!(block_h * block_w >= h * w, "{block_h}×{block_w} at {u} < {h}×{w}");
            }
        }
    }
}
