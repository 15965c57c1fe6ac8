//! V-JEPA 2-AC (arXiv 2506.09985): from the embeddings of frames, and what was done between them, those of the next frame.
//!
//! The encoder is a V-JEPA 2 that stays as it is. It is shown one frame at a time, so that each frame has embeddings of its own; the
//! predictor sees, of each frame, its action, its state and its tokens, and of other frames only earlier ones.

use burn::tensor::{Device, Tensor, TensorData};

use super::encoder::{Encoder, Pictures};
use super::predictor::normalised;
use super::world::{Context, Goal};
use crate::config::{Actions, ModelConfig};
use crate::nn::ops::{self, AttentionMask, Rows};
use crate::nn::rope::{Frequencies, Rope};
use crate::nn::{Block, LayerNorm, Linear, Parameters};
use crate::objective::distance::Distance;
use crate::world::{Candidates, Cost, Slopes, moved, pulled_back};
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

/// Embeddings of what is told of sequences of frames.
struct Beside {
    /// Those of all actions, then those of all states.
    rows: Tensor<1>,
    /// States, and as many actions: those of all frames of all sequences.
    states: usize,
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
        let [batch, ..] = tokens.dims();
        let beside = self.beside(self.uploaded(told, [batch, grid[0]])?);
        self.predicted(tokens, grid, &beside, 0)
    }

    /// What is told, `[batch, frames, ..]`, on the device: actions and states, `[batch·frames, ..]`.
    fn uploaded(&self, told: Told, [batch, frames]: [usize; 2]) -> Result<[Tensor<2>; 2]> {
        let sizes = [self.actions.action_size, self.actions.state_size];
        check("action", told.actions, [batch, frames, sizes[0]])?;
        check("state", told.states, [batch, frames, sizes[1]])?;
        let upload = |values: &[f32], size: usize| {
            let values = TensorData::new(values.to_vec(), [batch * frames, size]);
            ops::uploaded(values, &self.device)
        };
        Ok([
            upload(told.actions, sizes[0]),
            upload(told.states, sizes[1]),
        ])
    }

    /// Embeddings of actions and states.
    fn beside(&self, [actions, states]: [Tensor<2>; 2]) -> Beside {
        let rows = ops::joined(
            self.action_encoder.forward(actions),
            self.state_encoder.forward(states),
            &self.device,
        );
        let [count, _] = rows.dims();
        Beside {
            rows: ops::reshaped(rows, [count * self.width]),
            states: count / TOLD,
        }
    }

    /// [`forward`](Self::forward), with what is beside the tokens of the frames from `first` on.
    fn predicted(
        &self,
        tokens: Tensor<3>,
        grid: [usize; 3],
        beside: &Beside,
        first: usize,
    ) -> Result<Tensor<3>> {
        let [frames, rows, columns] = grid;
        let [batch, count, _] = tokens.dims();
        let patches = rows * columns;
        if count == 0 || count != frames * patches {
            return Err(Error::BadInput(format!(
                "{count} tokens are not those of {frames} frames of {rows} × {columns} patches"
            )));
        }

        // Actions and states follow the tokens.
        let (told_row, frame) = (batch * count, TOLD + patches);
        let steps = beside.states / batch;
        let of_sequence = |b: usize| -> Vec<usize> {
            let of_frame = |t: usize| {
                let (place, told) = (b * frames + t, told_row + b * steps + first + t);
                let told = [told, told + beside.states];
                told.into_iter()
                    .chain(place * patches..(place + 1) * patches)
            };
            (0..frames).flat_map(of_frame).collect()
        };
        let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
        let index = Rows::new(&index, told_row + TOLD * beside.states, &self.device);
        let told = Some(beside.rows.clone());
        let mut x = ops::select(self.embed.forward(tokens), told, &index, None);
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
        let [batch, ..] = known.dims();
        let steps = (frames + horizon).saturating_sub(1);
        let beside = self.beside(self.uploaded(told, [batch, steps])?);
        self.imagined(known, [frames, rows, columns], &beside)
    }

    /// [`rollout`](Self::rollout), with what is beside the tokens of all frames.
    fn imagined(
        &self,
        known: Tensor<3>,
        [frames, rows, columns]: [usize; 3],
        beside: &Beside,
    ) -> Result<Vec<Tensor<3>>> {
        let [batch, count, d] = known.dims();
        let patches = rows * columns;
        if frames == 0 || count != frames * patches {
            return Err(Error::BadInput(format!(
                "{count} tokens are not those of {frames} frames of {rows} × {columns} patches"
            )));
        }
        let steps = beside.states / batch;
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
        let mut imagined = Vec::with_capacity(steps + 1 - frames);
        for end in frames..=steps {
            let length = seen.dims()[1];
            let first = end - length / patches;
            let grid = [end - first, rows, columns];
            let predicted = self.predicted(seen.clone(), grid, beside, first)?;
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
        let (actions, told) = self.told(context, candidates, states)?;
        let told = Told {
            actions: &actions,
            states: &told,
        };
        let steps = self.steps(context, candidates.horizon);
        let uploaded = self.predictor.uploaded(told, [candidates.count, steps])?;
        self.rolled_out(context, candidates.count, uploaded)
    }

    /// Frames of a context.
    pub(super) fn frames(&self, context: &Context) -> usize {
        context.embeddings.dims()[0] / self.patches()
    }

    /// Frames of a context and of what follows from it, but the last.
    fn steps(&self, context: &Context, horizon: usize) -> usize {
        self.frames(context) + horizon - 1
    }

    /// The actions and states of every frame of every sequence, as [`Told`] has them.
    fn told(
        &self,
        context: &Context,
        candidates: &Candidates,
        states: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let sizes = self.predictor.actions;
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
        Ok((actions, told))
    }

    /// [`rollout`](Self::rollout) of `count` sequences, with the actions and states of every frame.
    fn rolled_out(
        &self,
        context: &Context,
        count: usize,
        told: [Tensor<2>; 2],
    ) -> Result<Vec<Tensor<2>>> {
        let predictor = &self.predictor;
        let [rows, d] = context.embeddings.dims();
        let (patches, [height, width]) = (self.patches(), predictor.native);
        let index = vec![(0..rows).collect(); count];
        let index = Rows::new(&index, rows, &predictor.device);
        let known = ops::select(context.embeddings.clone(), None, &index, None);
        let grid = [rows / patches, height, width];
        let steps = predictor.imagined(known, grid, &predictor.beside(told))?;
        let flat = |x: Tensor<3>| ops::reshaped(x, [count * patches, d]);
        Ok(steps.into_iter().map(flat).collect())
    }

    /// The mean distance of each patch of each candidate's embeddings to the goal's.
    fn distances(
        &self,
        context: &Context,
        Goal { embedding, cost }: &Goal,
        count: usize,
        told: [Tensor<2>; 2],
    ) -> Result<Tensor<1>> {
        let patches = self.patches();
        let d = self.encoder.config().hidden_size;
        if embedding.dims() != [patches * d] {
            return Err(Error::BadInput(format!(
                "the goal is a frame's embeddings, {} numbers, not {:?}",
                patches * d,
                embedding.dims()
            )));
        }
        let mut steps = self.rolled_out(context, count, told)?;
        let last = steps.swap_remove(steps.len() - 1);
        let index = vec![(0..patches).collect(); count];
        let index = Rows::new(&index, patches, &self.predictor.device);
        let goal = ops::reshaped(embedding.clone(), [patches, d]);
        let goal = ops::select(goal, None, &index, None);
        let goal = ops::reshaped(goal, [count * patches, d]);
        let away = |step| ops::distance(step, goal.clone(), Distance::L1 { power: 1.0 });
        Ok(match cost {
            Cost::Last => away(last),
            Cost::Sum => steps
                .into_iter()
                .fold(away(last), |sum, step| ops::sum(sum, away(step))),
        })
    }

    /// What [`understood`](Self::understood) tells from what each candidate costs, the mean over patches and features of `|last prediction −
    /// goal|`, or the sum of those of all predictions; with `slopes` how that changes with actions and states, too. Still on the device,
    /// `[numbers, 1]`.
    ///
    /// # Errors
    /// As [`rollout`](Self::rollout).
    pub(super) fn costed(
        &self,
        context: &Context,
        goal: &Goal,
        candidates: &Candidates,
        slopes: bool,
    ) -> Result<Tensor<2>> {
        let (actions, states) = self.told(context, candidates, None)?;
        let told = Told {
            actions: &actions,
            states: &states,
        };
        let count = candidates.count;
        let steps = self.steps(context, candidates.horizon);
        let [actions, states] = self.predictor.uploaded(told, [count, steps])?;
        let column = |x: Tensor<1>| {
            let [numbers] = x.dims();
            ops::reshaped(x, [numbers, 1])
        };
        if !slopes {
            return Ok(column(self.distances(
                context,
                goal,
                count,
                [actions, states],
            )?));
        }
        let [actions, states] = [actions, states].map(|x| x.autodiff().require_grad());
        let told = [actions.clone(), states.clone()];
        let distances = self.distances(context, goal, count, told)?;
        let patches = self.patches();
        let each = vec![(patches as f32).recip(); count * patches];
        let each = TensorData::new(each, [count * patches]);
        let each = ops::uploaded(each, &self.predictor.device);
        let gradients = ops::with_gradient(distances.clone(), each).backward();
        let mut parts = vec![column(distances.inner())];
        for told in [actions, states] {
            let [rows, size] = told.dims();
            let gradient = told.grad(&gradients);
            let gradient =
                gradient.ok_or_else(|| Error::Internal("what is told has no gradient".into()))?;
            parts.push(ops::reshaped(gradient, [rows * size, 1]));
        }
        Ok(ops::stacked(parts, &self.predictor.device))
    }

    /// Costs and gradients, of which there are none where [`costed`](Self::costed) was not asked for them. An action changes the predictions
    /// that are told it, and by [`moved`] all states that follow.
    pub(super) fn understood(
        &self,
        context: &Context,
        candidates: &Candidates,
        values: &[f32],
    ) -> Result<Slopes> {
        let patches = self.patches();
        let sizes = self.predictor.actions;
        let (count, horizon) = (candidates.count, candidates.horizon);
        let (distances, gradients) = values.split_at(count * patches);
        let mean = |rows: &[f32]| {
            let sum: f64 = rows.iter().map(|&v| f64::from(v)).sum();
            (sum / patches as f64) as f32
        };
        let mut slopes = Slopes {
            costs: distances.chunks_exact(patches).map(mean).collect(),
            gradients: Vec::new(),
        };
        if gradients.is_empty() {
            return Ok(slopes);
        }
        let (action, state) = (sizes.action_size, sizes.state_size);
        let steps = self.steps(context, horizon);
        let (of_actions, of_states) = gradients.split_at(count * steps * action);
        let (_, states) = self.told(context, candidates, None)?;
        let sequences = candidates.data.chunks_exact(horizon * action);
        slopes.gradients = vec![0.0; count * horizon * action];
        for (number, sequence) in sequences.enumerate() {
            // What is told of the step of the candidate's own actions.
            let row = |step: usize| number * steps + steps - horizon + step;
            let mut later = vec![0.0; state];
            for step in (0..horizon).rev() {
                let own = &states[row(step) * state..][..state];
                let done = &sequence[step * action..][..action];
                let direct = &of_actions[row(step) * action..][..action];
                let at = (number * horizon + step) * action;
                let gradient = &mut slopes.gradients[at..at + action];
                gradient.copy_from_slice(direct);
                if step + 1 < horizon {
                    let [before, through] = pulled_back(own, done, &later);
                    later = before;
                    let pairs = gradient.iter_mut().zip(through);
                    pairs.for_each(|(slope, more)| *slope += more as f32);
                }
                let told = &of_states[row(step) * state..][..state];
                let pairs = later.iter_mut().zip(told);
                pairs.for_each(|(slope, &more)| *slope += f64::from(more));
            }
        }
        Ok(slopes)
    }
}
