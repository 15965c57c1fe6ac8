//! V-JEPA's masks: blocks that last for some time are targets, what is left is context.
//!
//! Unlike I-JEPA's, scale and aspect ratio are drawn apart, and blocks are placed with inclusive ends, so that borders are
//! covered.

use serde::{Deserialize, Serialize};

use super::{ASPECTS, Masks, SCALES, check_range, lerp, sides, truncate};
use crate::rng::Generator;
use crate::{Error, Result};

/// Blocks are drawn this many times for an image before it is given up; the published sampler never gives up.
const MAX_DRAWS: usize = 1000;
/// Keeps [`MAX_DRAWS`] short; published are ten at most.
const MAX_BLOCKS: usize = 256;

/// V-JEPA's sampler. Each mask type has a context and targets of its own; all types of a batch share one draw of uniforms, as
/// published, where a generator with the same seed serves each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Multiblock3d {
    /// The mask types of one batch. Default: [`MaskType::short_range`] alone.
    pub types: Vec<MaskType>,
}

/// One of V-JEPA's mask types; the defaults are those of [`short_range`](Self::short_range).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaskType {
    /// Blocks, whose union is the target: 8.
    pub num_blocks: usize,
    /// Area of a block as a part of the grid of one time step, from and to: 0.15 both.
    pub spatial_scale: [f64; 2],
    /// Duration of a block as a part of the clip's, from and to: 1 both.
    pub temporal_scale: [f64; 2],
    /// Height of a block over its width, from and to: 0.75 to 1.5.
    pub aspect_ratio: [f64; 2],
    /// Context only comes from this first part of the clip; what is later is target, too: 1.
    pub max_temporal_keep: f64,
    /// Most tokens of a context; absent for no limit.
    pub max_keep: Option<usize>,
    /// V-JEPA 2: targets are all tokens that the shortened context has not: false.
    pub full_complement: bool,
    /// V-JEPA 2: the context is all tokens that the shortened targets have not, `max_keep` or not: false.
    pub pred_full_complement: bool,
    /// V-JEPA 2: context and targets change places: false.
    pub inv_block: bool,
}

impl MaskType {
    /// Eight small blocks: the first type of V-JEPA 1, 2 and 2.1 on clips.
    pub fn short_range() -> Self {
        Self {
            num_blocks: 8,
            spatial_scale: [0.15; 2],
            temporal_scale: [1.0; 2],
            aspect_ratio: [0.75, 1.5],
            max_temporal_keep: 1.0,
            max_keep: None,
            full_complement: false,
            pred_full_complement: false,
            inv_block: false,
        }
    }

    /// Two large blocks: the second type of V-JEPA 1, 2 and 2.1 on clips.
    pub fn long_range() -> Self {
        Self {
            num_blocks: 2,
            spatial_scale: [0.7; 2],
            ..Self::short_range()
        }
    }
}

impl Default for MaskType {
    fn default() -> Self {
        Self::short_range()
    }
}

impl Default for Multiblock3d {
    fn default() -> Self {
        Self {
            types: vec![MaskType::short_range()],
        }
    }
}

impl Multiblock3d {
    /// Both types of every released configuration.
    pub fn published() -> Self {
        Self {
            types: vec![MaskType::short_range(), MaskType::long_range()],
        }
    }

    pub(super) fn check(&self, grid: [usize; 3]) -> Result<()> {
        if self.types.is_empty() {
            return Err(Error::BadMask("types names no mask type".into()));
        }
        self.types.iter().try_for_each(|kind| kind.check(grid))
    }

    pub(super) fn sample(
        &self,
        grid: [usize; 3],
        batch: usize,
        sizes: &mut dyn Generator,
        places: &mut dyn Generator,
    ) -> Result<Masks> {
        self.check(grid)?;
        let uniforms = [sizes.uniform(), sizes.uniform(), sizes.uniform()].map(f64::from);
        let mut masks = Masks {
            context: Vec::new(),
            targets: Vec::new(),
        };
        for kind in &self.types {
            let of_type = kind.sample(grid, batch, uniforms, places)?;
            masks.context.extend(of_type.context);
            masks.targets.extend(of_type.targets);
        }
        Ok(masks)
    }
}

impl MaskType {
    fn check(&self, [_, height, width]: [usize; 3]) -> Result<()> {
        check_range("spatialScale", self.spatial_scale, SCALES)?;
        check_range("temporalScale", self.temporal_scale, SCALES)?;
        check_range("aspectRatio", self.aspect_ratio, ASPECTS)?;
        let refused = if !(1..=MAX_BLOCKS).contains(&self.num_blocks) {
            "numBlocks must be from 1 to 256"
        } else if !(f64::MIN_POSITIVE..=1.0).contains(&self.max_temporal_keep) {
            "maxTemporalKeep must be more than 0 and at most 1"
        } else if self.max_keep == Some(0) {
            "maxKeep must be at least 1"
        } else if self.full_complement && self.pred_full_complement {
            "fullComplement and predFullComplement contradict each other: choose one"
        } else {
            let area = ((height * width) as f64 * self.spatial_scale[0]) as usize;
            let [flat, narrow] = self.aspect_ratio.map(|aspect| sides(area, aspect));
            if flat[0] > 0 && narrow[1] > 0 {
                return Ok(());
            }
            "a block can be less than one token high or wide: raise spatialScale"
        };
        Err(Error::BadMask(refused.into()))
    }

    fn sample(
        &self,
        grid: [usize; 3],
        batch: usize,
        uniforms: [f64; 3],
        places: &mut dyn Generator,
    ) -> Result<Masks> {
        let block = self.block_size(grid, uniforms);
        let (mut contexts, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..batch {
            let (context, target) = self.image(grid, block, places)?;
            contexts.push(context);
            targets.push(target);
        }
        truncate(&mut contexts, self.max_keep.unwrap_or(usize::MAX));
        truncate(&mut targets, usize::MAX);
        let tokens = grid.iter().product();
        if self.full_complement {
            targets = contexts.iter().map(|c| complement(c, tokens)).collect();
        } else if self.pred_full_complement {
            contexts = targets.iter().map(|t| complement(t, tokens)).collect();
        }
        if self.inv_block {
            std::mem::swap(&mut contexts, &mut targets);
        }
        Ok(Masks {
            context: contexts,
            targets: vec![targets],
        })
    }

    /// `[time, height, width]`.
    fn block_size(
        &self,
        [t, h, w]: [usize; 3],
        [temporal, spatial, aspect]: [f64; 3],
    ) -> [usize; 3] {
        let duration = (t as f64 * lerp(self.temporal_scale, temporal)) as usize;
        let area = ((h * w) as f64 * lerp(self.spatial_scale, spatial)) as usize;
        let [height, width] = sides(area, lerp(self.aspect_ratio, aspect));
        [duration.max(1), height.min(h), width.min(w)]
    }

    fn image(
        &self,
        [t, h, w]: [usize; 3],
        [duration, height, width]: [usize; 3],
        places: &mut dyn Generator,
    ) -> Result<(Vec<usize>, Vec<usize>)> {
        let kept_time = ((t as f64 * self.max_temporal_keep) as usize).max(1);
        for _ in 0..MAX_DRAWS {
            let mut seen = vec![true; t * h * w];
            seen[kept_time * h * w..].fill(false);
            for _ in 0..self.num_blocks {
                let top = places.below(h - height + 1);
                let left = places.below(w - width + 1);
                let start = places.below(t - duration + 1);
                for time in start..start + duration {
                    for row in top..top + height {
                        let first = (time * h + row) * w + left;
                        seen[first..first + width].fill(false);
                    }
                }
            }
            let (context, target): (Vec<_>, Vec<_>) = (0..seen.len()).partition(|&i| seen[i]);
            if !context.is_empty() {
                return Ok((context, target));
            }
        }
        Err(Error::BadMask(format!(
            "{MAX_DRAWS} times, {} blocks of {duration}×{height}×{width} left no context on a grid of {t}×{h}×{w} (time × height × width): lower numBlocks, spatialScale or temporalScale",
            self.num_blocks
        )))
    }
}

/// The tokens that are not in `indices`, which are ascending.
fn complement(indices: &[usize], tokens: usize) -> Vec<usize> {
    let mut others = Vec::with_capacity(tokens - indices.len());
    let mut from = 0;
    for &index in indices {
        others.extend(from..index);
        from = index + 1;
    }
    others.extend(from..tokens);
    others
}
