//! V-JEPA 2-AC (arXiv 2506.09985): from the embeddings of frames, and what was done between them, those of the next frame.
//!
//! The encoder is a V-JEPA 2 that stays as it is. It is shown one frame at a time, so that each frame has embeddings of its own; the
//! predictor sees, of each frame, its action, its state and its tokens, and of other frames only earlier ones.

use burn::tensor::{Device, Tensor, TensorData};

use super::encoder::{Encoder, Pictures};
use super::predictor::normalised;
use crate::config::{Actions, ModelConfig};
use crate::nn::ops::{self, AttentionMask, Rows};
use crate::nn::rope::{Frequencies, Rope};
use crate::nn::{Block, LayerNorm, Linear, Parameters};
use crate::{Error, Result};

/// Tokens of a frame that are not patches: its action, then its state.
const TOLD: usize = 2;

/// Predicts the embeddings of frames that follow.
pub struct ActionPredictor {
    width: usize,
    head_dim: usize,
    actions: Actions,
    /// Patches of the encoder's native picture, `[rows, columns]`, as which positions of other grids are counted.
    native: [usize; 2],
    embed: Linear,
    action_encoder: Linear,
    state_encoder: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    proj: Linear,
    device: Device,
}

/// What is known of the frames of sequences besides their tokens, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// `[batch, frames, action_size]`: what is done after each frame.
    pub actions: &'a [f32],
    /// `[batch, frames, state_size]`: the state in each.
    pub states: &'a [f32],
}

impl ActionPredictor {
    /// Builds the predictor that `config` describes from its parameters, under their original names.
    ///
    /// # Errors
    /// [`Error::BadConfig`] where `config` describes none with actions, [`Error::MissingTensor`].
    pub fn take(
        config: &ModelConfig,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let described = config.predictor.as_ref();
        let described = described.and_then(|predictor| Some((predictor, predictor.actions?)));
        let (predictor, actions) = described.ok_or_else(|| {
            Error::BadConfig("the configuration describes no predictor with actions".into())
        })?;
        let eps = config.layer_norm_eps;
        let [_, rows, columns] = config.grid();
        Ok(Self {
            width: predictor.hidden_size,
            head_dim: predictor.head_dim(),
            actions,
            native: [rows, columns],
            embed: parameters.linear("predictor_embed")?,
            action_encoder: parameters.linear("action_encoder")?,
            state_encoder: parameters.linear("state_encoder")?,
            blocks: (0..predictor.layers)
                .map(|i| {
                    let name = format!("predictor_blocks.{i}");
                    Block::take(parameters, &name, predictor.heads, eps)
                })
                .collect::<Result<_>>()?,
            norm: parameters.norm("predictor_norm", eps)?,
            proj: parameters.linear("predictor_proj")?,
            device: device.clone(),
        })
    }

    /// From the tokens of each frame those of the frame after it, `[batch, frames·rows·columns, d]` → the same, before they are normalised as
    /// [`encode_frames`] has them. `grid` is `[frames, rows, columns]`.
    ///
    /// # Errors
    /// [`Error::BadInput`] for sizes that do not fit each other, and for numbers that are none.
    pub fn forward(&self, tokens: Tensor<3>, grid: [usize; 3], told: Told) -> Result<Tensor<3>> {
        let [frames, rows, columns] = grid;
        let [batch, count, _] = tokens.dims();
        let patches = rows * columns;
        if count == 0 || count != frames * patches {
            return Err(Error::BadInput(format!(
                "{count} tokens are not those of {frames} frames of {rows} × {columns} patches"
            )));
        }
        let sizes = [self.actions.action_size, self.actions.state_size];
        check("action", told.actions, [batch, frames, sizes[0]])?;
        check("state", told.states, [batch, frames, sizes[1]])?;
        let of_frames = |encoder: &Linear, values: &[f32], size: usize| {
            let values = TensorData::new(values.to_vec(), [batch * frames, size]);
            encoder.forward(ops::uploaded::<2>(values, &self.device))
        };
        let beside = ops::joined(
            of_frames(&self.action_encoder, told.actions, sizes[0]),
            of_frames(&self.state_encoder, told.states, sizes[1]),
            &self.device,
        );
        let beside = ops::reshaped(beside, [TOLD * batch * frames * self.width]);

        // Actions and states follow the tokens.
        let (told_row, frame) = (batch * count, TOLD + patches);
        let of_sequence = |b: usize| -> Vec<usize> {
            let of_frame = |t: usize| {
                let place = b * frames + t;
                let told = [told_row + place, told_row + batch * frames + place];
                told.into_iter()
                    .chain(place * patches..(place + 1) * patches)
            };
            (0..frames).flat_map(of_frame).collect()
        };
        let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
        let index = Rows::new(&index, told_row + TOLD * batch * frames, &self.device);
        let mut x = ops::select(self.embed.forward(tokens), Some(beside), &index, None);
        let turns = self.turns(grid);
        let past = AttentionMask::Causal { block: frame };
        for block in &self.blocks {
            x = block.forward(x, Some(&turns), past);
        }
        let of_sequence = |b: usize| -> Vec<usize> {
            let place = |i: usize| (b * frames + i / patches) * frame + TOLD + i % patches;
            (0..count).map(place).collect()
        };
        let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
        let index = Rows::new(&index, batch * frames * frame, &self.device);
        let seen = self.norm.forward(ops::select(x, None, &index, None));
        Ok(self.proj.forward(seen))
    }

    /// Imagines the frames after `first [batch, rows·columns, d]`, which is normalised, one for each action: `[batch, (1 + frames)·rows·columns, d]`,
    /// normalised, `first` included. States are those in which the actions begin.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    pub fn rollout(
        &self,
        first: Tensor<3>,
        [rows, columns]: [usize; 2],
        frames: usize,
        told: Told,
    ) -> Result<Tensor<3>> {
        let [batch, patches, d] = first.dims();
        let sizes = [self.actions.action_size, self.actions.state_size];
        check("action", told.actions, [batch, frames, sizes[0]])?;
        check("state", told.states, [batch, frames, sizes[1]])?;
        let until = |values: &[f32], size: usize, end: usize| -> Vec<f32> {
            let sequences = values.chunks_exact(frames * size);
            sequences.flat_map(|s| &s[..end * size]).copied().collect()
        };
        let mut known = first;
        for end in 1..=frames {
            let told = Told {
                actions: &until(told.actions, sizes[0], end),
                states: &until(told.states, sizes[1], end),
            };
            let next = self.forward(known.clone(), [end, rows, columns], told)?;
            let last = |b: usize| (b + 1) * end * patches - patches..(b + 1) * end * patches;
            let index: Vec<Vec<usize>> = (0..batch).map(|b| last(b).collect()).collect();
            let index = Rows::new(&index, batch * end * patches, &self.device);
            let next = normalised(ops::select(next, None, &index, None), 1, &self.device);
            let of_sequence = |b: usize| -> Vec<usize> {
                let known = b * end * patches..(b + 1) * end * patches;
                let row = batch * end * patches + b * patches;
                known.chain(row..row + patches).collect()
            };
            let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
            let index = Rows::new(&index, batch * (end + 1) * patches, &self.device);
            let next = ops::reshaped(next, [batch * patches * d]);
            known = ops::select(known, Some(next), &index, None);
        }
        Ok(known)
    }

    /// Turns of every token of a sequence: patches by time, row and column, what is told by time alone.
    fn turns(&self, [frames, rows, columns]: [usize; 3]) -> Tensor<2> {
        let rope = Rope {
            frequencies: Frequencies::Tiled,
            pretrained_grid: None,
        };
        let scale = [
            self.native[0] as f64 / rows as f64,
            self.native[1] as f64 / columns as f64,
        ];
        let mut table = Vec::new();
        for frame in 0..frames {
            let time = frame as f64;
            for _ in 0..TOLD {
                rope.append([time, 0.0, 0.0], self.head_dim, &mut table);
            }
            for patch in 0..rows * columns {
                let [row, column] = [(patch / columns) as f64, (patch % columns) as f64];
                let place = [time, row * scale[0], column * scale[1]];
                rope.append(place, self.head_dim, &mut table);
            }
        }
        let width = 2 * self.head_dim;
        let data_rows = table.len() / width;
        ops::uploaded(TensorData::new(table, [data_rows, width]), &self.device)
    }
}

/// # Errors
/// [`Error::BadInput`] where the values are not `[batch, frames, size]`, or not all numbers.
fn check(what: &str, values: &[f32], [batch, frames, size]: [usize; 3]) -> Result<()> {
    if values.len() != batch * frames * size {
        return Err(Error::BadInput(format!(
            "{batch} sequences of {frames} frames have {} numbers in their {what}s, {size} each, not {}",
            batch * frames * size,
            values.len()
        )));
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::BadInput(format!(
            "the {what} of frame {} of sequence {} is not finite",
            at / size % frames,
            at / size / frames
        ))),
    }
}

/// The embeddings of every frame of clips by itself, normalised without parameters: `[batch, frames·rows·columns, d]`. A frame is repeated
/// to one tubelet.
///
/// # Errors
/// [`Error::BadInput`] for sizes that the encoder does not take.
pub fn encode_frames(encoder: &Encoder, clips: &Pictures, device: &Device) -> Result<Tensor<3>> {
    let config = encoder.config();
    let [height, width] = clips.size;
    let frame = config.channels * height * width;
    let count = clips.batch * clips.frames;
    if count * frame == 0 || clips.pixels.len() != count * frame {
        return Err(Error::BadInput(format!(
            "{} numbers are not {} clips of {} frames of {width} × {height} pixels",
            clips.pixels.len(),
            clips.batch,
            clips.frames
        )));
    }
    let pixels = clips
        .pixels
        .chunks_exact(frame)
        .flat_map(|frame| std::iter::repeat_n(frame, config.tubelet).flatten())
        .copied()
        .collect();
    let apart = Pictures {
        pixels,
        batch: count,
        frames: config.tubelet,
        size: clips.size,
    };
    let tokens = normalised(encoder.levels(&apart, None, 1)?, 1, device);
    let [_, patches, d] = tokens.dims();
    Ok(ops::reshaped(
        tokens,
        [clips.batch, clips.frames * patches, d],
    ))
}
