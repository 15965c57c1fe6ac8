//! Rotary positions of three axes, time, row and column, as V-JEPA 2 and later have them.
//!
//! Each axis has `n = 2·((head_dim / 3) / 2)` channels of every head, in the order time, row, column; what is left of the head is not
//! touched. Frequency `i` of an axis is `10000^(−i / (n/2))`. Channels are paired with their neighbours: of a pair `(a, b)`
//! channel `a` becomes `a·cos α − b·sin α` and `b` becomes `b·cos β + a·sin β`.

use crate::config::{ModelConfig, System};

/// How the angles of a pair's channels are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frequencies {
    /// Channel `j` of an axis has frequency `j mod n/2`, so that the channels of a pair have different angles and nothing is rotated.
    /// V-JEPA 2 was trained so; its features are wrong without.
    Tiled,
    /// Both channels of a pair have one frequency: a rotation. V-JEPA 2.1.
    Interleaved,
}

/// The rotary positions of the tokens of a grid.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Which channel turns how fast.
    pub frequencies: Frequencies,
    /// Rows and columns are scaled as if the grid had so many patches on a side: 16 in the encoder of V-JEPA 2.1 (256 pixels, patch 16),
    /// which was pretrained so. None leaves integers.
    pub pretrained_grid: Option<usize>,
}

impl Rope {
    /// Those of a model's encoder, or of its predictor, which never scales positions; None where it has a table instead.
    pub fn of(config: &ModelConfig, predictor: bool) -> Option<Self> {
        let frequencies = match config.system {
            System::IJepa | System::VJepa | System::LeWm => return None,
            System::VJepa2 => Frequencies::Tiled,
            System::VJepa21 => Frequencies::Interleaved,
        };
        Some(Self {
            frequencies,
            pretrained_grid: config.rope_grid.filter(|_| !predictor),
        })
    }

    /// Sines and cosines for tokens of a grid `[time, rows, columns]`: for each token and each pair of its head's channels
    /// `[cos α, sin α, cos β, sin β]`, `[tokens, 2·head_dim]`.
    pub fn table(
        &self,
        [_, rows, columns]: [usize; 3],
        head_dim: usize,
        tokens: impl Iterator<Item = usize>,
    ) -> Vec<f32> {
        let scale = |side: usize| match self.pretrained_grid {
            Some(grid) if side > 1 => (grid as f64 - 1.0) / (side as f64 - 1.0),
            _ => 1.0,
        };
        let scales = [1.0, scale(rows), scale(columns)];
        let mut table = Vec::new();
        for token in tokens {
            let place = [
                token / (rows * columns),
                token / columns % rows,
                token % columns,
            ];
            let positions = std::array::from_fn(|axis| place[axis] as f64 * scales[axis]);
            self.append(positions, head_dim, &mut table);
        }
        table
    }

    /// Appends the numbers of one token at `positions`, `[cos α, sin α, cos β, sin β]` a pair of channels.
    pub fn append(&self, positions: [f64; 3], head_dim: usize, table: &mut Vec<f32>) {
        let pairs = head_dim / 3 / 2;
        for position in positions {
            let angle =
                |frequency: usize| position * 10000f64.powf(-(frequency as f64) / pairs as f64);
            for pair in 0..pairs {
                let of_channel = match self.frequencies {
                    Frequencies::Tiled => [2 * pair % pairs, (2 * pair + 1) % pairs],
                    Frequencies::Interleaved => [pair; 2],
                };
                for frequency in of_channel {
                    let angle = angle(frequency);
                    table.extend([angle.cos() as f32, angle.sin() as f32]);
                }
            }
        }
        for _ in 3 * pairs..head_dim / 2 {
            table.extend([1.0, 0.0, 1.0, 0.0]);
        }
    }
}
