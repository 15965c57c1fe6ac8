//! V-JEPA's random tubes: a random part of the places is context, in every time step the same.

use serde::{Deserialize, Serialize};

use super::Masks;
use crate::rng::Generator;
use crate::{Error, Result};

/// Parameters of V-JEPA's random tubes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tube {
    /// The part that is masked: 0.9.
    pub ratio: f64,
}

impl Default for Tube {
    fn default() -> Self {
        Self { ratio: 0.9 }
    }
}

impl Tube {
    /// Places that are kept, of one time step.
    fn kept(&self, places: usize) -> usize {
        (places as f64 * (1.0 - self.ratio)) as usize
    }

    pub(super) fn check(&self, [_, h, w]: [usize; 3]) -> Result<()> {
        let kept = self.kept(h * w);
        if (0.0..=1.0).contains(&self.ratio) && (1..h * w).contains(&kept) {
            return Ok(());
        }
        Err(Error::BadMask(format!(
            "with a ratio of {} a time step of {h}×{w} tokens has {kept} as context: choose one between 0 and 1 that leaves both context and targets",
            self.ratio
        )))
    }

    pub(super) fn sample(
        &self,
        [t, h, w]: [usize; 3],
        batch: usize,
        places: &mut dyn Generator,
    ) -> Result<Masks> {
        self.check([t, h, w])?;
        let mut masks = Masks {
            context: Vec::with_capacity(batch),
            targets: vec![Vec::with_capacity(batch)],
        };
        for _ in 0..batch {
            let mut seen = vec![false; h * w];
            for place in &places.permutation(h * w)[..self.kept(h * w)] {
                seen[*place] = true;
            }
            let (context, target) = (0..t * h * w).partition(|i| seen[i % (h * w)]);
            masks.context.push(context);
            masks.targets[0].push(target);
        }
        Ok(masks)
    }
}
