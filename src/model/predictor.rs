//! The predictor of every Meta JEPA: a narrow ViT of the encoder's blocks that guesses the embeddings of hidden tokens from those of
//! visible ones.

use burn::tensor::{Device, Tensor, TensorData};

use super::encoder::{Encoder, Pictures, check_masks, upload_turns};
use crate::config::{ModelConfig, System};
use crate::device::read_values;
use crate::mask::Masks;
use crate::nn::ops::{self, AttentionMask, Rows};
use crate::nn::rope::Rope;
use crate::nn::{Block, LayerNorm, Linear, Parameters, positions};
use crate::objective::distance::Distance;
use crate::{Error, Result};

/// Added to the variance where prediction targets are normalised, as `torch.nn.functional.layer_norm` does by default.
pub const TARGET_EPS: f64 = 1e-5;

/// Predicts embeddings of masked tokens from those of visible ones.
pub struct Predictor {
    width: usize,
    head_dim: usize,
    /// Levels of the encoder's output that it is given.
    levels: usize,
    output_size: usize,
    /// V-JEPA 2.1 narrows four levels to one before it embeds them.
    narrow: Option<Linear>,
    embed: Linear,
    mask_tokens: Vec<Tensor<1>>,
    /// V-JEPA 2.1: what is added to every token of clips, and of pictures.
    modality: Option<[Tensor<1>; 2]>,
    places: Places,
    native: [usize; 3],
    blocks: Vec<Block>,
    norm: LayerNorm,
    proj: Linear,
    /// V-JEPA 2.1: a projection of its own for what becomes of the context.
    proj_context: Option<Linear>,
    device: Device,
}

enum Places {
    Added(Vec<f32>),
    Turned(Rope),
}

/// What is seen of an input, and what is to be predicted of it.
#[derive(Clone, Copy, Debug)]
pub struct Masked<'a> {
    /// The tokens that the encoder's output is of: mask `c` of image `b` at `c·batch + b`.
    pub context: &'a [Vec<usize>],
    /// The tokens to predict, `[block][image]`.
    pub targets: &'a [Vec<Vec<usize>>],
    /// Patches of the input, `[time, rows, columns]`.
    pub grid: [usize; 3],
    /// Which mask token stands for what is hidden. Training counts kinds of masks; Hugging Face's V-JEPA 2 uses 1.
    pub mask_index: usize,
    /// Whether the input is a single picture, which V-JEPA 2.1 tells its predictor.
    pub picture: bool,
}

impl Predictor {
    /// Builds the predictor that `config` describes from its parameters, under their original names.
    ///
    /// # Errors
    /// [`Error::BadConfig`] where `config` describes none, [`Error::MissingTensor`].
    pub fn take(
        config: &ModelConfig,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let predictor = config.predictor.as_ref().ok_or_else(|| {
            Error::BadConfig("the configuration does not describe a predictor".into())
        })?;
        let eps = config.layer_norm_eps;
        let newest = config.system == System::VJepa21;
        let (narrow, embed) = match predictor.levels {
            1 => (None, "predictor_embed"),
            _ => (
                Some(parameters.linear("predictor_embed.0")?),
                "predictor_embed.2",
            ),
        };
        let mask_tokens = match config.system {
            System::IJepa => vec![parameters.vector("mask_token")?],
            _ => (0..predictor.mask_tokens)
                .map(|i| parameters.vector(&format!("mask_tokens.{i}")))
                .collect::<Result<_>>()?,
        };
        Ok(Self {
            width: predictor.hidden_size,
            head_dim: predictor.head_dim(),
            levels: predictor.levels,
            output_size: predictor.output_size,
            narrow,
            embed: parameters.linear(embed)?,
            mask_tokens,
            modality: match newest {
                false => None,
                true => {
                    let mut token = |name| parameters.vector(&parameters.predictor_name(name));
                    Some([token("video_mod_embed")?, token("img_mod_embed")?])
                }
            },
            places: match Rope::of(config, true) {
                Some(rope) => Places::Turned(rope),
                None => Places::Added(
                    parameters
                        .table("predictor_pos_embed")
                        .unwrap_or_else(|| positions::fixed(config, predictor.hidden_size)),
                ),
            },
            native: config.grid(),
            blocks: (0..predictor.layers)
                .map(|i| {
                    let name = format!("predictor_blocks.{i}");
                    Block::take(parameters, &name, predictor.heads, eps)
                })
                .collect::<Result<_>>()?,
            norm: parameters.norm("predictor_norm", eps)?,
            proj: parameters.linear("predictor_proj")?,
            proj_context: match newest {
                false => None,
                true => Some(parameters.linear("predictor_proj_context")?),
            },
            device: device.clone(),
        })
    }

    /// Levels of the encoder's output that it is given: see [`Encoder::levels`].
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Predicts the targets of `masked` from the encoder's output at its context, `seen [masks·batch, n, levels·d]`:
    /// `[blocks·masks·batch, k, d]`, block by block.
    ///
    /// Each block is predicted by itself: a sequence is the context and the queries of one block, so that queries of
    /// different blocks never see each other.
    ///
    /// # Errors
    /// [`Error::BadMask`] for indices that do not fit the grid or each other, and for a mask token that there is not.
    pub fn forward(&self, seen: Tensor<3>, masked: Masked) -> Result<Tensor<3>> {
        let (x, visible) = self.run(seen, masked)?;
        Ok(self.proj.forward(self.part(x, visible, true)))
    }

    /// The same, and what becomes of the context: `[blocks·masks·batch, n, d]`.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), and [`Error::Unsupported`] for systems other than V-JEPA 2.1.
    pub fn forward_with_context(&self, seen: Tensor<3>, masked: Masked) -> Result<[Tensor<3>; 2]> {
        let proj_context = self.proj_context.as_ref().ok_or_else(|| {
            Error::Unsupported("only V-JEPA 2.1 predicts at the places of the context too".into())
        })?;
        let (x, visible) = self.run(seen, masked)?;
        Ok([
            self.proj.forward(self.part(x.clone(), visible, true)),
            proj_context.forward(self.part(x, visible, false)),
        ])
    }

    /// The blocks' output for every sequence, context first, and how many tokens of it are context.
    fn run(&self, context: Tensor<3>, masked: Masked) -> Result<(Tensor<3>, usize)> {
        let Masked {
            context: tokens,
            targets,
            grid,
            mask_index,
            picture,
        } = masked;
        let count = grid.iter().product();
        let batch = check_targets(targets, count)?;
        check_masks(tokens, context.dims()[0], count)?;
        if !tokens.len().is_multiple_of(batch) {
            return Err(Error::BadMask(format!(
                "{} context masks do not belong to {batch} pictures: give each picture as many",
                tokens.len()
            )));
        }
        let mask_token = self.mask_tokens.get(mask_index).ok_or_else(|| {
            Error::BadMask(format!(
                "there is no mask token {mask_index}: the predictor has {}",
                self.mask_tokens.len()
            ))
        })?;
        let d = self.width;
        let (visible, masked) = (tokens[0].len(), targets[0][0].len());
        let length = visible + masked;
        let sequences: Vec<(usize, &Vec<usize>)> = targets
            .iter()
            .flat_map(|block| (0..tokens.len()).map(move |row| (row, &block[row % batch])))
            .collect();

        let context = match &self.narrow {
            Some(narrow) => narrow.forward_gelu(context),
            None => context,
        };
        let table = match &self.places {
            Places::Added(table) => Some(positions::resampled(table, self.native, grid, d)?),
            Places::Turned(_) => None,
        };
        let context = match &table {
            Some(table) => {
                let rows = positions::gathered(table, d, tokens);
                let rows = TensorData::new(rows, [tokens.len(), visible, d]);
                self.embed
                    .forward_onto(context, ops::uploaded(rows, &self.device))
            }
            None => self.embed.forward(context),
        };

        // The mask token follows the rows of the context.
        let mask_row = tokens.len() * visible;
        let of_row = |row: &usize| {
            let own = row * visible..(row + 1) * visible;
            own.chain(std::iter::repeat_n(mask_row, masked)).collect()
        };
        let index: Vec<Vec<usize>> = sequences.iter().map(|(row, _)| of_row(row)).collect();
        let index = Rows::new(&index, mask_row + 1, &self.device);
        let added = table.map(|table| {
            let mut added = Vec::with_capacity(sequences.len() * length * d);
            for (_, target) in &sequences {
                added.extend(std::iter::repeat_n(0.0, visible * d));
                for &token in *target {
                    added.extend_from_slice(&table[token * d..(token + 1) * d]);
                }
            }
            let added = TensorData::new(added, [sequences.len() * length, d]);
            ops::uploaded(added, &self.device)
        });
        let mut x = ops::select(context, Some(mask_token.clone()), &index, added);
        if let Some([clips, pictures]) = &self.modality {
            let token = if picture { pictures } else { clips };
            let all = vec![vec![0; length]; sequences.len()];
            let all = Rows::new(&all, 1, &self.device);
            x = ops::sum(x, ops::select(token.clone(), None, &all, None));
        }
        let rotary = match &self.places {
            Places::Added(_) => None,
            Places::Turned(rope) => {
                let ids = sequences
                    .iter()
                    .flat_map(|(row, target)| tokens[*row].iter().chain(*target));
                let ids = ids.copied();
                Some(upload_turns(rope, grid, self.head_dim, ids, &self.device))
            }
        };
        for block in &self.blocks {
            x = block.forward(x, rotary.as_ref(), AttentionMask::Full);
        }
        Ok((x, visible))
    }

    /// The normalised queries of every sequence, or its context.
    fn part(&self, x: Tensor<3>, visible: usize, queries: bool) -> Tensor<3> {
        let [sequences, length, _] = x.dims();
        let part = if queries { visible..length } else { 0..visible };
        let rows: Vec<Vec<usize>> = (0..sequences)
            .map(|s| part.clone().map(|t| s * length + t).collect())
            .collect();
        let rows = Rows::new(&rows, sequences * length, &self.device);
        self.norm.forward(ops::select(x, None, &rows, None))
    }
}

/// What a predictor says of masked tokens, and what they are; on the host.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The predictor's output.
    pub predicted: Vec<f32>,
    /// V-JEPA 2.1: its output at the places of the context, `[blocks, n, d]`, as each block's queries were there with it.
    pub at_context: Option<Vec<f32>>,
    /// The target encoder's output, normalised.
    pub target: Vec<f32>,
    /// The distance of each token's prediction, `[blocks, k]`: the training loss before averaging.
    pub error: Vec<f32>,
    /// `[blocks, k, d]`, with the blocks of all pictures of one block together.
    pub shape: [usize; 3],
}

/// What the context encoder is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextFrom {
    /// The visible tokens alone, as in training.
    #[default]
    Visible,
    /// Every token, of whose embeddings those of the visible ones are taken: they have seen what is to be predicted. Hugging Face's
    /// V-JEPA 2 does so.
    WholeInput,
}

impl std::str::FromStr for ContextFrom {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "visible" => Ok(Self::Visible),
            "whole-input" => Ok(Self::WholeInput),
            _ => Err(Error::BadInput(format!(
                "contextFrom {name:?} is unknown; use \"visible\" or \"whole-input\""
            ))),
        }
    }
}

/// The distance that a system's predictor was trained to make small.
pub fn trained_distance(system: System) -> Distance {
    match system {
        System::IJepa => Distance::SmoothL1 { beta: 1.0 },
        System::VJepa | System::VJepa2 | System::VJepa21 => Distance::L1 { power: 1.0 },
        System::LeWm => Distance::Mse,
    }
}

/// Predicts `masks.targets` of pictures or clips from `masks.context`; what is predicted is the target encoder's view of the whole.
///
/// # Errors
/// [`Error::BadInput`] for an unusable size, [`Error::BadMask`], [`Error::Unsupported`] for the predictor of a distilled model, which
/// predicts its teacher's embeddings; [`Error::Internal`] when the device fails.
pub async fn predict(
    [context, target]: [&Encoder; 2],
    predictor: &Predictor,
    pictures: &Pictures,
    masks: &Masks,
    from: ContextFrom,
    mask_index: usize,
) -> Result<Prediction> {
    let config = context.config();
    let grid = context.grid(pictures)?;
    let count = grid.iter().product::<usize>();
    check_targets(&masks.targets, count)?;
    let levels = predictor.levels;
    if predictor.output_size != levels * config.hidden_size {
        return Err(Error::Unsupported(format!(
            "this predictor was distilled: it predicts embeddings of width {} of its teacher, and the encoder's have {}",
            predictor.output_size, config.hidden_size
        )));
    }
    let masked = Masked {
        context: &masks.context,
        targets: &masks.targets,
        grid,
        mask_index,
        picture: pictures.frames == 1,
    };
    let device = &predictor.device;
    let seen = match from {
        ContextFrom::Visible => context.levels(pictures, Some(&masks.context), levels)?,
        ContextFrom::WholeInput => {
            check_masks(&masks.context, pictures.batch, count)?;
            gathered(
                context.levels(pictures, None, levels)?,
                std::slice::from_ref(&masks.context),
                1,
                device,
            )
        }
    };
    let (predicted, at_context) = match predictor.proj_context {
        None => (predictor.forward(seen, masked)?, None),
        Some(_) => {
            let [predicted, at_context] = predictor.forward_with_context(seen, masked)?;
            (predicted, Some(at_context))
        }
    };
    let every_token = target.levels(pictures, None, levels)?;
    let wanted = taken(
        normalised(every_token, levels, device),
        &masks.targets,
        1,
        device,
    )?;
    let distance = trained_distance(config.system);
    let error = ops::distance(predicted.clone(), wanted.clone(), distance);
    let shape = predicted.dims();
    Ok(Prediction {
        predicted: read_values(predicted).await?,
        at_context: match at_context {
            None => None,
            Some(at_context) => Some(read_values(at_context).await?),
        },
        target: read_values(wanted).await?,
        error: read_values(error).await?,
        shape,
    })
}

/// The target encoder's output `[batch, n, levels·d]` as a predictor is to predict it: each level of a token normalised without affine
/// parameters.
pub fn normalised(tokens: Tensor<3>, levels: usize, device: &Device) -> Tensor<3> {
    let [batch, count, width] = tokens.dims();
    let d = width / levels;
    let plain = LayerNorm::plain(d, TARGET_EPS, device);
    let normed = |x| plain.forward(x);
    match levels {
        1 => normed(tokens),
        _ => {
            let apart = ops::reshaped(tokens, [batch, count * levels, d]);
            ops::reshaped(normed(apart), [batch, count, width])
        }
    }
}

/// Of such tokens those at `targets[block][image]`: `[blocks·masks·batch, k, levels·d]`, each block once for each of `masks` context
/// masks.
///
/// # Errors
/// [`Error::BadMask`] for indices that do not fit the tokens or each other.
pub fn taken(
    normed: Tensor<3>,
    targets: &[Vec<Vec<usize>>],
    masks: usize,
    device: &Device,
) -> Result<Tensor<3>> {
    let [batch, count, _] = normed.dims();
    if check_targets(targets, count)? != batch {
        return Err(Error::BadMask(format!(
            "the masks are of {} pictures, and there are {batch}",
            targets[0].len()
        )));
    }
    Ok(gathered(normed, targets, masks, device))
}

/// Tokens of `x [batch, n, d]` at `indices[block][image]`, block by block, each block `masks` times: `[blocks·masks·batch, k, d]`.
fn gathered(x: Tensor<3>, indices: &[Vec<Vec<usize>>], masks: usize, device: &Device) -> Tensor<3> {
    let [batch, count, _] = x.dims();
    let index: Vec<Vec<usize>> = indices
        .iter()
        .flat_map(|block| std::iter::repeat_n(block, masks).flatten().enumerate())
        .map(|(row, mask)| mask.iter().map(|t| row % batch * count + t).collect())
        .collect();
    let rows = Rows::new(&index, batch * count, device);
    ops::select(x, None, &rows, None)
}

/// Checks masks `[block][image]` of a grid of `count` tokens; gives the number of images.
fn check_targets(targets: &[Vec<Vec<usize>>], count: usize) -> Result<usize> {
    let Some(first) = targets.first() else {
        return Err(Error::BadMask(
            "there is no target block; give at least one".into(),
        ));
    };
    if first.is_empty() {
        return Err(Error::BadMask("the target blocks are of no picture".into()));
    }
    let all: Vec<Vec<usize>> = targets.iter().flatten().cloned().collect();
    check_masks(&all, first.len() * targets.len(), count)?;
    match targets.iter().find(|block| block.len() != first.len()) {
        None => Ok(first.len()),
        Some(block) => Err(Error::BadMask(format!(
            "a target block is of {} pictures and another of {}",
            first.len(),
            block.len()
        ))),
    }
}
