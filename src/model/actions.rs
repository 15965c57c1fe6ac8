//! V-JEPA 2-AC (arXiv 2506.09985): from the embeddings of frames, and what was done between them, those of the next frame.
//!
//! The encoder is a V-JEPA 2 that stays as it is. It is shown one frame at a time, so that each frame has embeddings of its own; the
//! predictor sees, of each frame, its action, its state and its tokens, and of other frames only earlier ones.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

use super::encoder::{Encoder, Pictures};
use super::predictor::normalised;
use super::world::{Context, Goal};
use crate::config::{Actions, ModelConfig};
use crate::device::read_values;
use crate::nn::ops::{self, AttentionMask, Rows};
use crate::nn::rope::{Frequencies, Rope};
use crate::nn::{Block, LayerNorm, Linear, Parameters};
use crate::objective::distance::Distance;
use crate::world::{Candidates, Cost, moved};
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
    history: usize,
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
        let [history, rows, columns] = config.grid();
        Ok(Self {
            history,
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

    /// Imagines what follows `known [batch, frames·rows·columns, d]`, which is normalised, with `grid` `[frames, rows, columns]`: `horizon`
    /// frames `[batch, rows·columns, d]`, normalised, one for each action from the last known frame on. What is told begins with the first
    /// known frame, `[batch, frames − 1 + horizon, ..]`. A prediction is made from as many of the last frames as the
    /// [`history`](Self::history) has.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    pub fn rollout(
        &self,
        known: Tensor<3>,
        [frames, rows, columns]: [usize; 3],
        horizon: usize,
        told: Told,
    ) -> Result<Vec<Tensor<3>>> {
        let [batch, count, d] = known.dims();
        let patches = rows * columns;
        if frames == 0 || count != frames * patches {
            return Err(Error::BadInput(format!(
                "{count} tokens are not those of {frames} frames of {rows} × {columns} patches"
            )));
        }
        let steps = frames - 1 + horizon;
        let sizes = [self.actions.action_size, self.actions.state_size];
        check("action", told.actions, [batch, steps, sizes[0]])?;
        check("state", told.states, [batch, steps, sizes[1]])?;
        let part = |values: &[f32], size: usize, part: Range<usize>| -> Vec<f32> {
            let sequences = values.chunks_exact(steps * size);
            let of_part = sequences.flat_map(|s| &s[part.start * size..part.end * size]);
            of_part.copied().collect()
        };
        // The rows from `first` on of sequences of `length`, and with `next` a frame more of another tensor.
        let window = |first: usize, length: usize, next: bool| {
            let of_sequence = |b: usize| -> Vec<usize> {
                let row = batch * length + b * patches;
                let more = next.then_some(row..row + patches);
                (b * length + first..(b + 1) * length)
                    .chain(more.into_iter().flatten())
                    .collect()
            };
            let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
            let more = if next { batch * patches } else { 0 };
            Rows::new(&index, batch * length + more, &self.device)
        };
        let forgotten = |length: usize| (length / patches).saturating_sub(self.history) * patches;
        let mut seen = match forgotten(count) {
            0 => known,
            first => ops::select(known, None, &window(first, count, false), None),
        };
        let mut imagined = Vec::with_capacity(horizon);
        for end in frames..=steps {
            let length = seen.dims()[1];
            let first = end - length / patches;
            let told = Told {
                actions: &part(told.actions, sizes[0], first..end),
                states: &part(told.states, sizes[1], first..end),
            };
            let predicted = self.forward(seen.clone(), [end - first, rows, columns], told)?;
            let last = window(length - patches, length, false);
            let next = normalised(ops::select(predicted, None, &last, None), 1, &self.device);
            if end < steps {
                let grown = window(forgotten(length + patches), length, true);
                let next = ops::reshaped(next.clone(), [batch * patches * d]);
                seen = ops::select(seen, Some(next), &grown, None);
            }
            imagined.push(next);
        }
        Ok(imagined)
    }

    /// Most frames that a prediction is made from: as many as the encoder's native clip has time steps.
    pub fn history(&self) -> usize {
        self.history
    }

    /// Numbers of an action.
    pub fn action_size(&self) -> usize {
        self.actions.action_size
    }

    /// Tokens of a sequence of frames of the native size, what is told included.
    pub fn tokens(&self, frames: usize) -> usize {
        frames * (TOLD + self.native.iter().product::<usize>())
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

/// An encoder of frames, and how actions change what it says.
pub struct VJepa2Ac {
    encoder: Encoder,
    predictor: ActionPredictor,
}

impl VJepa2Ac {
    /// The model of these two, which are of one configuration.
    pub fn of(encoder: Encoder, predictor: ActionPredictor) -> Self {
        Self { encoder, predictor }
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The predictor.
    pub fn predictor(&self) -> &ActionPredictor {
        &self.predictor
    }

    /// Patches of a frame.
    fn patches(&self) -> usize {
        self.predictor.native.iter().product()
    }

    /// Embeddings of pictures of the native size, each as a frame by itself: `[pictures·patches, d]`.
    ///
    /// # Errors
    /// As [`encode_frames`].
    pub fn encode(&self, pictures: &Pictures) -> Result<Tensor<2>> {
        let tokens = encode_frames(&self.encoder, pictures, &self.predictor.device)?;
        let [batch, count, d] = tokens.dims();
        Ok(ops::reshaped(tokens, [batch * count, d]))
    }

    /// What sequences of actions lead to, step by step: the patches after each action, `horizon` tensors `[count·patches, d]`. The states
    /// in which actions begin follow from the last one of the context by [`moved`], unless they are given, `[count, horizon, state]`; the
    /// context's last state is not used then, and may be left out.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a context, candidates or states of other sizes, and where [`moved`] does not know the next state.
    pub fn rollout(
        &self,
        context: &Context,
        candidates: &Candidates,
        states: Option<&[f32]>,
    ) -> Result<Vec<Tensor<2>>> {
        let predictor = &self.predictor;
        let sizes = predictor.actions;
        candidates.check(sizes.action_size)?;
        let [rows, d] = context.embeddings.dims();
        let (patches, width) = (self.patches(), self.encoder.config().hidden_size);
        let frames = rows / patches;
        let between = frames.saturating_sub(1);
        if d != width || frames == 0 || rows != frames * patches {
            return Err(Error::BadInput(format!(
                "a frame has {patches} embeddings of {width} numbers, and the context has {rows} of {d}"
            )));
        }
        if context.actions.len() != between * sizes.action_size {
            return Err(Error::BadInput(format!(
                "{} numbers are not the actions, of {} each, between {frames} frames",
                context.actions.len(),
                sizes.action_size
            )));
        }
        let (count, horizon) = (candidates.count, candidates.horizon);
        let size = sizes.state_size;
        let past = &context.states[..context.states.len().min(between * size)];
        let known = context.states.len() == frames * size;
        let given = states.map_or(known, |states| {
            past.len() == between * size && states.len() == count * horizon * size
        });
        if !given {
            return Err(Error::BadInput(format!(
                "V-JEPA 2-AC is told the state, {size} numbers, in each of the {frames} frames that it starts from, or before each of \
                 the {horizon} actions of each sequence; it was given {} and {} numbers",
                context.states.len(),
                states.map_or(0, <[f32]>::len)
            )));
        }
        let (mut actions, mut told) = (Vec::new(), Vec::new());
        let sequences = candidates.data.chunks_exact(horizon * candidates.action);
        for (number, sequence) in sequences.enumerate() {
            actions.extend_from_slice(&context.actions);
            actions.extend_from_slice(sequence);
            told.extend_from_slice(past);
            if let Some(states) = states {
                let own = horizon * size;
                told.extend_from_slice(&states[number * own..(number + 1) * own]);
                continue;
            }
            let mut state = context.states[past.len()..].to_vec();
            for (step, action) in sequence.chunks_exact(candidates.action).enumerate() {
                told.extend_from_slice(&state);
                if step + 1 < horizon {
                    state = moved(&state, action)?;
                }
            }
        }
        let index = vec![(0..rows).collect(); count];
        let index = Rows::new(&index, rows, &predictor.device);
        let known = ops::select(context.embeddings.clone(), None, &index, None);
        let told = Told {
            actions: &actions,
            states: &told,
        };
        let [height, width] = predictor.native;
        let steps = predictor.rollout(known, [frames, height, width], horizon, told)?;
        let flat = |x: Tensor<3>| ops::reshaped(x, [count * patches, d]);
        Ok(steps.into_iter().map(flat).collect())
    }

    /// What each candidate costs: the mean over patches and features of `|last prediction − goal|`, or the sum of those of all predictions. Read
    /// back once.
    ///
    /// # Errors
    /// As [`rollout`](Self::rollout); [`Error::Internal`] when the device fails.
    pub async fn costs(
        &self,
        context: &Context,
        Goal { embedding, cost }: &Goal,
        candidates: &Candidates,
    ) -> Result<Vec<f32>> {
        let patches = self.patches();
        let numbers = patches * self.encoder.config().hidden_size;
        if embedding.dims() != [numbers] {
            return Err(Error::BadInput(format!(
                "the goal is a frame's embeddings, {numbers} numbers, not {:?}",
                embedding.dims()
            )));
        }
        let mut steps = self.rollout(context, candidates, None)?;
        let last = steps.swap_remove(steps.len() - 1);
        let [rows, d] = last.dims();
        let index = vec![(0..patches).collect(); rows / patches];
        let index = Rows::new(&index, patches, &self.predictor.device);
        let goal = ops::reshaped(embedding.clone(), [patches, d]);
        let goal = ops::select(goal, None, &index, None);
        let goal = ops::reshaped(goal, [rows, d]);
        let away = |step| ops::distance(step, goal.clone(), Distance::L1 { power: 1.0 });
        let distances = match cost {
            Cost::Last => away(last),
            Cost::Sum => steps
                .into_iter()
                .fold(away(last), |sum, step| ops::sum(sum, away(step))),
        };
        let distances = read_values(distances).await?;
        let mean = |rows: &[f32]| {
            let sum: f64 = rows.iter().map(|&v| f64::from(v)).sum();
            (sum / patches as f64) as f32
        };
        Ok(distances.chunks_exact(patches).map(mean).collect())
    }
}
