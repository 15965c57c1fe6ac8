//! I-JEPA's random masks: a random part of all tokens is context, the rest is target.

use serde::{Deserialize, Serialize};

use super::{Masks, SCALES, check_range, lerp};
use crate::rng::Generator;
use crate::{Error, Result};

/// Parameters of I-JEPA's random masks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Random {
    /// The part that is masked, from and to, drawn once a batch: 0.4 to 0.6.
    pub ratio: [f64; 2],
}

impl Default for Random {
    fn default() -> Self {
        Self { ratio: [0.4, 0.6] }
    }
}

/// How many of `tokens` are kept.
fn kept(tokens: usize, ratio: f64) -> usize {
    (tokens as f64 * (1.0 - ratio)) as usize
}

impl Random {
    pub(super) fn check(&self, [t, h, w]: [usize; 3]) -> Result<()> {
        check_range("ratio", self.ratio, SCALES)?;
        let tokens = t * h * w;
        let [most, least] = self.ratio.map(|ratio| kept(tokens, ratio));
        if least > 0 && most < tokens {
            return Ok(());
        }
        Err(Error::BadMask(format!(
            "with a ratio from {} to {}, from {least} to {most} of {tokens} tokens are context: choose one that leaves both context and targets",
            self.ratio[0], self.ratio[1]
        )))
    }

    pub(super) fn sample(
        &self,
        [t, h, w]: [usize; 3],
        batch: usize,
        sizes: &mut dyn Generator,
        places: &mut dyn Generator,
    ) -> Result<Masks> {
        self.check([t, h, w])?;
        let tokens = t * h * w;
        let kept = kept(tokens, lerp(self.ratio, sizes.uniform().into()));
        let mut masks = Masks {
            context: Vec::with_capacity(batch),
            targets: vec![Vec::with_capacity(batch)],
        };
        for _ in 0..batch {
            let mut context = places.permutation(tokens);
            let mut target = context.split_off(kept);
            context.sort_unstable();
            target.sort_unstable();
            masks.context.push(context);
            masks.targets[0].push(target);
        }
        Ok(masks)
    }
}
